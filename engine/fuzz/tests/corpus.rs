//! Runs each target with its seed corpus, without libFuzzer.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use dnsblock_fuzz::{list, query, response};

fn each(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = fs::read_dir(&folder).expect("the corpus is here");
    let mut paths: Vec<_> = files.map(|file| file.expect("the corpus is readable").path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "only {} files in {}", paths.len(), folder.display());
    paths.retain(|path| {
        let data = fs::read(path).expect("the corpus is readable");
        catch_unwind(|| property(&data)).inspect_err(|_| eprintln!("... by {}", path.display())).is_err()
    });
    assert!(paths.is_empty(), "the property does not hold for {paths:?}");
}

#[test]
fn each_packet_of_the_corpus_is_decided_as_by_the_model() {
    each("query", query::query);
}

#[test]
fn each_response_of_the_corpus_is_relayed_as_by_the_model() {
    each("response", response::response);
}

#[test]
fn each_list_of_the_corpus_is_compiled_as_by_the_model() {
    each("list", list::list);
}
