//! The compression of names in a compiled list. Each one-byte code stands for one to eight
//! characters that are frequent in the list. This halves the size.
//!
//! The method is FSST (Boncz, Neumann, Leis, "FSST: Fast Random Access String Compression", VLDB
//! 2020). This is our own implementation because the result must never change: a list has the same
//! bytes on every machine and in every version. Each character has its own code, so no name gets
//! longer and nothing is escaped.

use std::collections::HashMap;

use crate::name::Text;

/// The characters of names, in the order of their codes.
const ALPHABET: &[u8; 39] = b"abcdefghijklmnopqrstuvwxyz0123456789-_.";
const SINGLE: usize = ALPHABET.len();
/// Maximum number of characters of a symbol: those of a `Text::word`.
const LONGEST: usize = 8;
const SYMBOLS: usize = 256;
/// The number of iterations that improve the table.
const ROUNDS: usize = 5;

/// One to eight characters, the first one in the lowest byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Symbol {
    characters: u64,
    length: u8,
}

impl Symbol {
    fn single(byte: u8) -> Symbol {
        Symbol { characters: u64::from(byte), length: 1 }
    }

    /// The concatenation; `None` if it is too long.
    fn followed_by(self, other: Symbol) -> Option<Symbol> {
        let length = self.length + other.length;
        let characters = self.characters | other.characters << (8 * u32::from(self.length) % 64);
        (usize::from(length) <= LONGEST).then_some(Symbol { characters, length })
    }

    fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(self.length))
    }

    fn stands_in(self, word: u64) -> bool {
        (word ^ self.characters) & self.mask() == 0
    }

    fn bytes(self) -> [u8; LONGEST] {
        self.characters.to_le_bytes()
    }
}

/// The symbols of a list, by code.
#[derive(Clone)]
pub struct Symbols(Box<[Symbol; SYMBOLS]>);

impl Symbols {
    /// The best symbols for a sample. The same sample gives the same symbols.
    pub fn of<'a>(sample: impl Iterator<Item = &'a [u8]> + Clone) -> Symbols {
        let mut symbols = Symbols::write([].into_iter());
        let mut text = Text::default();
        for _ in 0..ROUNDS {
            let encoder = Encoder::new(symbols.clone());
            let mut gains: HashMap<Symbol, u64> = HashMap::new();
            for name in sample.clone() {
                text.take(name);
                let mut before: Option<Symbol> = None;
                encoder.each(&text, |code| {
                    let symbol = encoder.symbols.0[code as usize];
                    let pair = before.and_then(|before| before.followed_by(symbol));
                    for found in [Some(symbol), pair].into_iter().flatten() {
                        *gains.entry(found).or_default() += u64::from(found.length);
                    }
                    before = Some(symbol);
                });
            }
            let mut best: Vec<(Symbol, u64)> = gains.into_iter().filter(|(s, _)| s.length > 1).collect();
            // If the gain is equal, the longer one, then by its characters: the same on every
            // machine.
            best.sort_unstable_by_key(|&(symbol, gain)| std::cmp::Reverse((gain, symbol.length, symbol)));
            symbols = Symbols::write(best.into_iter().map(|(symbol, _)| symbol));
        }
        symbols
    }

    fn write(longer: impl Iterator<Item = Symbol>) -> Symbols {
        let mut symbols = Box::new([Symbol::default(); SYMBOLS]);
        let all = ALPHABET.iter().map(|&byte| Symbol::single(byte)).chain(longer);
        for (place, symbol) in symbols.iter_mut().zip(all) {
            *place = symbol;
        }
        Symbols(symbols)
    }

    /// The stored form: for each code its length and eight characters.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|symbol| [&[symbol.length][..], &symbol.bytes()].concat()).collect()
    }

    /// Reads the stored form; `None` if it is malformed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Symbols> {
        let mut symbols = Box::new([Symbol::default(); SYMBOLS]);
        let (records, []) = bytes.as_chunks::<{ 1 + LONGEST }>() else { return None };
        if records.len() != SYMBOLS || records.iter().any(|record| usize::from(record[0]) > LONGEST) {
            return None;
        }
        for (symbol, [length, characters @ ..]) in symbols.iter_mut().zip(records) {
            *symbol = Symbol { characters: u64::from_le_bytes(*characters), length: *length };
        }
        Some(Symbols(symbols))
    }

    pub const SIZE: usize = SYMBOLS * (1 + LONGEST);

    /// Whether these codes spell the name from this position on.
    pub fn spell(&self, codes: &[u8], text: &Text, from: usize) -> bool {
        let mut at = from;
        for &code in codes {
            let symbol = self.0[code as usize];
            if at >= text.length() || symbol.length == 0 || !symbol.stands_in(text.word(at)) {
                return false;
            }
            at += usize::from(symbol.length);
        }
        at == text.length()
    }

    /// Decodes a name; `None` if the codes are invalid.
    pub fn decode(&self, codes: &[u8], text: &mut Text) -> Option<()> {
        text.take(&[]);
        for &code in codes {
            let symbol = self.0[code as usize];
            let characters = &symbol.bytes()[..usize::from(symbol.length)];
            if characters.is_empty() || !text.append(characters) {
                return None;
            }
        }
        Some(())
    }
}

/// Finds the longest symbol at each position of a name.
pub struct Encoder {
    symbols: Symbols,
    /// The code of each byte; `NO_CHARACTER` for bytes that names do not have.
    single: [u8; 256],
    /// For two characters: the code of their symbol, or of the first character.
    pairs: Box<[u8; SINGLE * SINGLE]>,
    /// For three characters: the group of longer symbols that begin with them; 0 for none.
    triples: Box<[u8]>,
    /// Codes of symbols that begin with the same three characters, longest first.
    groups: Vec<Vec<u8>>,
}

/// For bytes that names do not have. The verification of each entry detects wrong codes.
const NO_CHARACTER: u8 = 0;

impl Encoder {
    pub fn new(symbols: Symbols) -> Encoder {
        let mut single = [NO_CHARACTER; 256];
        for (code, &byte) in ALPHABET.iter().enumerate() {
            single[byte as usize] = code as u8;
        }
        let mut pairs = Box::new([0; SINGLE * SINGLE]);
        for (place, code) in pairs.iter_mut().enumerate() {
            *code = (place / SINGLE) as u8;
        }
        let mut triples = vec![0; SINGLE * SINGLE * SINGLE].into_boxed_slice();
        let mut groups: Vec<Vec<u8>> = vec![Vec::new()];
        for (code, symbol) in symbols.0.iter().enumerate().skip(SINGLE) {
            let [a, b, c, ..] = symbol.bytes().map(|byte| usize::from(single[byte as usize]));
            match symbol.length {
                0 | 1 => {}
                2 => pairs[a * SINGLE + b] = code as u8,
                _ => {
                    let group = &mut triples[(a * SINGLE + b) * SINGLE + c];
                    if *group == 0 {
                        // At most 217 symbols have more than one character.
                        *group = groups.len() as u8;
                        groups.push(Vec::new());
                    }
                    groups[usize::from(*group)].push(code as u8);
                }
            }
        }
        for group in &mut groups {
            group.sort_by_key(|&code| std::cmp::Reverse(symbols.0[code as usize].length));
        }
        Encoder { symbols, single, pairs, triples, groups }
    }

    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Appends the codes of a name.
    pub fn encode(&self, text: &Text, out: &mut Vec<u8>) {
        self.each(text, |code| out.push(code));
    }

    /// Appends the codes of two names, each to its own output. Each step depends on a memory access
    /// of the step before; with two names, these waits overlap.
    pub fn encode_both(&self, texts: [&Text; 2], out: [&mut Vec<u8>; 2]) {
        let [first, second] = texts;
        let [first_out, second_out] = out;
        let (mut at, mut at_second) = (0, 0);
        while at < first.length() && at_second < second.length() {
            let code = self.longest(first.word(at), first.length() - at);
            let code_second = self.longest(second.word(at_second), second.length() - at_second);
            first_out.push(code);
            second_out.push(code_second);
            at += usize::from(self.symbols.0[code as usize].length);
            at_second += usize::from(self.symbols.0[code_second as usize].length);
        }
        self.each_from(first, at, |code| first_out.push(code));
        self.each_from(second, at_second, |code| second_out.push(code));
    }

    fn each(&self, text: &Text, take: impl FnMut(u8)) {
        self.each_from(text, 0, take);
    }

    fn each_from(&self, text: &Text, mut at: usize, mut take: impl FnMut(u8)) {
        while at < text.length() {
            let code = self.longest(text.word(at), text.length() - at);
            take(code);
            at += usize::from(self.symbols.0[code as usize].length);
        }
    }

    /// The code of the longest symbol at the start of a word with `left` characters.
    fn longest(&self, word: u64, left: usize) -> u8 {
        let class = |number: u32| usize::from(self.single[(word >> (8 * number)) as usize & 0xff]);
        if left == 1 {
            return class(0) as u8;
        }
        let pair = class(0) * SINGLE + class(1);
        if left > 2 {
            let group = self.triples[pair * SINGLE + class(2)];
            let mut codes = self.groups[usize::from(group)].iter();
            // After the name are zeros, which no symbol has.
            if let Some(&code) = codes.find(|&&code| self.symbols.0[code as usize].stands_in(word)) {
                return code;
            }
        }
        self.pairs[pair]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> Text {
        let mut text = Text::default();
        text.take(name.as_bytes());
        text
    }

    fn sample() -> Vec<String> {
        (0..2000)
            .map(|n| format!("cdn{}.slot{}poker.example-site{}.com", n % 7, n * 31 % 97, n % 13))
            .collect()
    }

    fn trained(sample: &[String]) -> Encoder {
        Encoder::new(Symbols::of(sample.iter().map(|name| name.as_bytes())))
    }

    #[test]
    fn every_name_is_spelled_and_none_gets_longer() {
        let sample = sample();
        let encoder = trained(&sample);
        let symbols = Symbols::from_bytes(&encoder.symbols().to_bytes()).unwrap();
        let longest = "z9_-".repeat(63);
        for name in sample.iter().map(String::as_str).chain(["", "a", "q.zz", "_dmarc.x-y.org", &longest]) {
            let mut codes = Vec::new();
            encoder.encode(&text(name), &mut codes);
            assert!(codes.len() <= name.len());
            let mut decoded = Text::default();
            assert_eq!(symbols.decode(&codes, &mut decoded), Some(()));
            assert_eq!(decoded.as_bytes(), name.as_bytes());
            assert!(symbols.spell(&codes, &text(name), 0));
            for other in [format!("{name}a"), format!("x{name}"), name.replace("site", "side")] {
                assert_eq!(symbols.spell(&codes, &text(&other), 0), other == name, "{name} for {other}");
            }
        }
    }

    #[test]
    fn two_names_at_once_are_written_as_one_after_the_other() {
        let sample = sample();
        let encoder = trained(&sample);
        let written = |name: &str| {
            let mut codes = Vec::new();
            encoder.encode(&text(name), &mut codes);
            codes
        };
        let longest = "z9_-".repeat(63);
        for name in ["", "a", "q.zz", &longest, &sample[7]] {
            for other in ["", "b", &longest, &sample[8]] {
                let (mut codes, mut unlisted) = (vec![1], vec![2, 3]);
                encoder.encode_both([&text(name), &text(other)], [&mut codes, &mut unlisted]);
                assert_eq!(codes, [&[1], &written(name)[..]].concat());
                assert_eq!(unlisted, [&[2, 3], &written(other)[..]].concat());
            }
        }
    }

    #[test]
    fn frequent_characters_take_few_bytes() {
        let sample = sample();
        let encoder = trained(&sample);
        let mut codes = Vec::new();
        sample.iter().for_each(|name| encoder.encode(&text(name), &mut codes));
        let written: usize = sample.iter().map(String::len).sum();
        assert!(codes.len() * 3 < written, "{} of {written}", codes.len());
    }

    #[test]
    fn the_same_sample_makes_the_same_symbols() {
        let bytes = || trained(&sample()).symbols().to_bytes();
        assert_eq!(bytes(), bytes());
        assert_eq!(bytes().len(), Symbols::SIZE);
    }

    #[test]
    fn foreign_bytes_are_rejected_and_foreign_codes_spell_no_name() {
        let mut bytes = trained(&sample()).symbols().to_bytes();
        assert!(Symbols::from_bytes(&bytes[1..]).is_none());
        bytes[9 * 7] = 9;
        assert!(Symbols::from_bytes(&bytes).is_none());
        let few = Encoder::new(Symbols::of([&b"a.b"[..]].into_iter()));
        let mut decoded = Text::default();
        assert_eq!(few.symbols().decode(&[255], &mut decoded), None);
        assert!(!few.symbols().spell(&[255], &text("a"), 0));
        assert_eq!(few.symbols().decode(&[0; 254], &mut decoded), None);
    }
}
