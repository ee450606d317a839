//! Measures counts of queried names: memory and time with 10,000,000 random names, and a report of 31 days.
//!
//! Run it with `cargo run --release --example query_counts` in `engine/`.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use _engine::list;
use _engine::name::Text;
use _engine::policy::{Action, Answer, Rule, Snapshot};
use _engine::query_counts::QueryCounts;
use _engine::query_counts::day::Day;
use _engine::query_counts::past::past_impact;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const RANDOM_NAMES: usize = 10_000_000;
const REAL_NAMES: u32 = 100_000;
const TABLE: usize = 36 << 20; // of `memory_mb: 48`
const DAYS: usize = 31;
const FILE: usize = (12 << 20) / (DAYS + 2);

fn resident_mb() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("Linux has it");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096 / 1_000_000
}

fn main() {
    let (mut random, mut text) = (StdRng::seed_from_u64(1), Text::default());
    println!("before: {} MB", resident_mb());
    let table = QueryCounts::new(TABLE);
    let real: Vec<String> = (0..REAL_NAMES).map(|number| format!("www.site{number}.example")).collect();
    let count = |text: &mut Text, name: &str| {
        text.take(name.as_bytes());
        table.count(text, table.place(text));
    };
    real.iter().cycle().take(20 * real.len()).for_each(|name| count(&mut text, name));
    println!("{REAL_NAMES} names, 20 queries each: {} MB", resident_mb());
    let names: Vec<String> =
        (0..1_000_000).map(|_| format!("{:x}.victim.example", random.random::<u64>())).collect();
    let (mut seconds, mut suffix) = (0.0, 0);
    for _ in 0..RANDOM_NAMES / names.len() {
        suffix += 1;
        let round: Vec<String> = names.iter().map(|name| format!("{suffix}{name}")).collect();
        let start = Instant::now();
        round.iter().for_each(|name| count(&mut text, name));
        seconds += start.elapsed().as_secs_f64();
    }
    let held = names.len() * 2 * 50 / 1_000_000;
    println!(
        "{RANDOM_NAMES} random names: {} MB (about {held} MB of them the names here), {:.0} ns each, {} bytes of names",
        resident_mb(),
        seconds * 1e9 / RANDOM_NAMES as f64,
        table.name_bytes(),
    );
    drop(names);
    let start = Instant::now();
    let counted = table.counted(false);
    let kept = counted.names.iter().filter(|(_, count)| *count == 20).count();
    println!(
        "names with all 20 queries: {kept} of {REAL_NAMES}; bound {}, read in {:?}",
        counted.bound,
        start.elapsed()
    );
    let start = Instant::now();
    let day = Day::of(&counted, 1, FILE);
    println!("file: {} bytes, {} names, written in {:?}", day.data().len(), day.names, start.elapsed());
    drop((counted, table));

    let answer = Arc::new(Answer::without_data(Action::Nodata, 0, None));
    let block = Rule::Answer { answer, reference: "".into(), structured: None };
    let entries: String = (0..1000).map(|number| format!("subtree 0 site{number}.example\n")).collect();
    let zone = Arc::new(list::entries("order", vec![block], entries.as_bytes()).expect("valid names"));
    let days = vec![day; DAYS];
    let (start, before) = (Instant::now(), resident_mb());
    let impact = past_impact(zone, &Snapshot::new(Vec::new(), 1), &days, 20).expect("not corrupt");
    println!(
        "1,000 names over {DAYS} days: {:?}, {} MB more; {} queries blocked",
        start.elapsed(),
        resident_mb().saturating_sub(before),
        impact.blocked
    );
}
