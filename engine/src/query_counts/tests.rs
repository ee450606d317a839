//! The table against a naive twin, a map of all names: for skewed, uniform and adversarial queries.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::day::Day;
use super::*;
use crate::name::Name;

const PLENTY: usize = 64 << 20;

fn text(name: &str) -> Text {
    let mut text = Text::default();
    text.take(name.as_bytes());
    text
}

fn count(table: &QueryCounts, name: &Text) {
    table.count(name, table.place(name));
}

/// Counts the queries in a table of so many bytes. Returns its counts and the true ones.
fn both(bytes: usize, stream: impl Iterator<Item = String>) -> (Counted, HashMap<String, u64>) {
    let (table, mut truth) = (QueryCounts::new(bytes), HashMap::new());
    for name in stream {
        count(&table, &text(&name));
        *truth.entry(name).or_default() += 1;
    }
    assert!(table.name_bytes() <= table.name_capacity);
    (table.counted(false), truth)
}

/// The true counts are within the bound, and no name below the threshold is there.
fn assert_bounded(queries: u64, bound: u64, counts: &HashMap<String, u64>, truth: &HashMap<String, u64>) {
    assert_eq!(queries, truth.values().sum::<u64>());
    for (name, count) in counts {
        assert!(*count >= 10 && *count <= truth[name], "{name}: {count} of {}", truth[name]);
    }
    for (name, real) in truth {
        let count = counts.get(name).copied().unwrap_or(0);
        assert!(*real <= count + bound, "{name}: {real}, counted {count}, bound {bound}");
    }
}

fn as_map(counted: &Counted) -> HashMap<String, u64> {
    let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    counted.names.iter().map(|(name, count)| (text(&name.slice), *count)).collect()
}

fn of_day(day: &Day) -> HashMap<String, u64> {
    let (mut lines, mut counts) = (day.lines().unwrap(), HashMap::new());
    while lines.advance().unwrap() {
        counts.insert(String::from_utf8(lines.name.clone()).unwrap(), lines.count);
    }
    counts
}

/// Streams of different shapes, by seed.
fn stream(seed: u64) -> impl Iterator<Item = String> {
    let mut random = StdRng::seed_from_u64(seed);
    let names = random.random_range(1..5000u32);
    (0..random.random_range(1..15_000u32)).map(move |at| match seed % 4 {
        // Skewed: the rank of a name is about the inverse of its share.
        0 => format!("n{}.example", (f64::from(names).powf(random.random::<f64>())) as u32),
        1 => format!("n{}.example", random.random_range(0..names)),
        // In order, which is the worst case of Space-Saving.
        2 => format!("n{}.example", at % names),
        // A flood of random names between the queries for few others.
        _ if at % 3 == 0 => format!("n{}.example", at % 50),
        _ => format!("{:x}.victim.example", random.random::<u64>()),
    })
}

#[test]
fn counts_are_within_their_bound_for_any_stream_and_memory() {
    for seed in 0..48 {
        let bytes = [4 << 10, 64 << 10, 1 << 20][seed as usize % 3];
        let (counted, truth) = both(bytes, stream(seed));
        assert_bounded(counted.queries, counted.bound, &as_map(&counted), &truth);
    }
}

#[test]
fn without_evictions_counts_are_exact() {
    for seed in 0..8 {
        let (counted, mut truth) = both(PLENTY, stream(seed));
        assert!(counted.bound < 10);
        truth.retain(|_, count| *count >= 10);
        assert_eq!(as_map(&counted), truth);
    }
}

#[test]
fn the_bound_holds_after_a_day_is_cut_and_added_to_another() {
    for seed in 0..40 {
        let ((one, first), (other, second)) = (both(1 << 20, stream(seed)), both(32 << 10, stream(seed + 1)));
        let day = Day::of(&one, 1, [300, 3000, 1 << 20][seed as usize % 3]);
        assert_bounded(day.head.queries, day.head.bound, &of_day(&day), &first);
        let sum = day.and(&Day::of(&other, 2, 1 << 20), 2000).unwrap();
        assert!(sum.data().len() <= 2000);
        let mut truth = first;
        second.into_iter().for_each(|(name, count)| *truth.entry(name).or_default() += count);
        assert_bounded(sum.head.queries, sum.head.bound, &of_day(&sum), &truth);
        assert_eq!(sum.head.hours, 3);
        let read = Day::read(sum.data()).unwrap();
        assert_eq!((read.head, read.names, read.listed), (sum.head, sum.names, sum.listed));
    }
}

/// The requirement on privacy: below the tenth query there is only a hash.
#[test]
fn a_name_is_stored_at_its_tenth_query() {
    let table = QueryCounts::new(1 << 20);
    for query in 1..=10 {
        assert_eq!((table.counted(false).names.len(), table.name_bytes()), (0, 0), "before query {query}");
        count(&table, &text("rare.example"));
    }
    assert_eq!(as_map(&table.counted(true)), HashMap::from([("rare.example".to_string(), 10)]));
    let empty = table.counted(false);
    assert_eq!((empty.queries, empty.bound, empty.names.len(), table.name_bytes()), (0, 0, 0, 0));
}

#[test]
fn a_flood_of_random_names_pushes_out_no_name_that_is_queried_twice() {
    let table = QueryCounts::new(256 << 10);
    let real: Vec<_> = (0..500).map(|number| text(&format!("real{number}.example"))).collect();
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..20 {
        real.iter().for_each(|name| count(&table, name));
        for _ in 0..if round > 1 { 5000 } else { 0 } {
            count(&table, &text(&format!("{:x}.victim.example", random.random::<u64>())));
        }
    }
    let counts = as_map(&table.counted(false));
    assert_eq!(counts.len(), 500);
    assert!(counts.values().all(|count| *count == 20));
}

/// Names of the greatest length, each queried ten times, may use up the memory for names.
#[test]
fn names_with_more_queries_get_the_memory_of_others() {
    let table = QueryCounts::new(256 << 10);
    let long =
        |number: u32| text(&format!("{number:060}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63)));
    for number in 0..5000 {
        (0..10).for_each(|_| count(&table, &long(number)));
        assert!(table.name_bytes() <= table.name_capacity);
    }
    (0..1000).for_each(|_| count(&table, &text("popular.example")));
    assert!(as_map(&table.counted(false)).contains_key("popular.example"));
}

#[test]
fn a_name_that_no_list_can_hold_is_counted_only_in_the_total() {
    let table = QueryCounts::new(1 << 20);
    for wire in [&b"\x00"[..], b"\x04t.me\x00", b"\x03a b\x02id\x00", b"\x01*\x02id\x00"] {
        let (name, _) = Name::parse(wire, 0).unwrap();
        (0..20).for_each(|_| count(&table, crate::name::Walk::new(&name, 0).text()));
    }
    let counted = table.counted(false);
    assert_eq!((counted.queries, counted.bound, counted.names.len()), (80, 0, 0));
}

#[test]
fn threads_lose_no_query() {
    let table = Arc::new(QueryCounts::new(64 << 10));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                (0..20_000).for_each(|number| count(&table, &text(&format!("n{}", number % 7))))
            })
        })
        .collect();
    let mut queries = 0;
    let mut sums: HashMap<String, u64> = HashMap::new();
    let mut bound = 0;
    while !threads.iter().all(|thread| thread.is_finished()) {
        let counted = table.counted(true);
        (queries, bound) = (queries + counted.queries, bound + counted.bound);
        as_map(&counted).into_iter().for_each(|(name, count)| *sums.entry(name).or_default() += count);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let counted = table.counted(true);
    (queries, bound) = (queries + counted.queries, bound + counted.bound);
    as_map(&counted).into_iter().for_each(|(name, count)| *sums.entry(name).or_default() += count);
    assert_eq!(queries, 80_000);
    let most = sums.values().copied().max().unwrap();
    assert!(most <= 4 * 2858 && most + bound >= 4 * 2857);
}

#[test]
fn corrupt_days_are_recognised() {
    let (counted, _) = both(PLENTY, stream(1));
    let data = Day::of(&counted, 1, 1 << 20).data().to_vec();
    assert!(Day::read(&data).is_ok());
    for cut in [0, 1, 10, data.len() / 2, data.len() - 1] {
        assert!(Day::read(&data[..cut]).is_err(), "cut at {cut}");
    }
    for at in (10..data.len()).step_by(97) {
        let mut wrong = data.clone();
        wrong[at] ^= 1;
        assert!(Day::read(&wrong).is_err(), "byte {at}");
    }
    let text = |text: &str| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let head = "dnsblock-query-counts 1 100 5 3\n";
    assert!(Day::read(&text(&format!("{head}10 a.example\n20 b.example\n"))).is_ok());
    let invalid = [
        "".to_string(),
        "dnsblock-query-counts 2 100 5 3\n".to_string(),
        "dnsblock-query-counts 1 100 5\n".to_string(),
        "dnsblock-query-counts 1 100 5 16777216\n".to_string(),
        format!("{head}9 a.example\n"),
        format!("{head}20 b.example\n10 a.example\n"),
        format!("{head}10 a.example\n10 a.example\n"),
        format!("{head}10 A.example\n"),
        format!("{head}10 a.example."),
        format!("{head}10 a.example.\n"),
        format!("{head}10 a b\n"),
        format!("{head}101 a.example\n"),
        format!("{head}10 {}\n", "a.".repeat(400)),
        format!("{head}10 {}", "a".repeat(1 << 20)),
    ];
    for (number, wrong) in invalid.iter().enumerate() {
        assert!(Day::read(&text(wrong)).is_err(), "{number}: {:.80}", wrong);
    }
}
