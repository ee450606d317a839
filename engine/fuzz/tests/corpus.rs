//! Every file of the seed corpora through its property, without libFuzzer.

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
fn every_packet_of_the_corpus_is_decided_soundly() {
    each("query", query::query);
}

#[test]
fn every_answer_of_the_corpus_is_relayed_soundly() {
    each("response", response::response);
}

#[test]
fn every_list_of_the_corpus_is_compiled_as_it_reads() {
    each("list", list::list);
}
