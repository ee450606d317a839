//! Compiles the files of a list to compiled names, and reports on every line.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::files::{self, Failure, ListFile};
use super::formats::adblock::SwitchedOff;
use super::report::Report;
use super::{Exceptions, Format, Line, NameGuard, Reader, Reason, Settings};
use crate::name::Name;
use crate::policy::Match;
use crate::policy::compiler::{Compiled, Compiler, Destination, Origin};
use crate::policy::names::Names;

/// Bytes of a file by which its format or type is recognised.
pub const HEAD: usize = 64 << 10;
/// The usual ratio of a compressed list.
const COMPRESSION: u64 = 8;
/// For each rule of a list, whether it is for exceptions: listed names, exemptions, passthrus.
pub const RULES_ARE_EXCEPTIONS: [bool; 3] = [false, true, true];
const LISTED: u32 = 0;
const EXEMPT: u32 = 1;
const PASSTHRU: u32 = 2;

/// Bytes read so far, for a progress display.
#[derive(Default)]
pub struct Progress(AtomicU64);

impl Progress {
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Compiles a list from all of its files. Without a `format`, each file's own is recognised.
///
/// Invalid lines are dropped and reported. The caller decides whether the rest is good enough.
pub fn compile(
    files: &[ListFile],
    settings: Settings,
    format: Option<Format>,
    guard: &NameGuard,
    into: Destination<'_>,
    compared_with: Option<Arc<Names>>,
    progress: &Progress,
) -> Result<(Compiled, Report), Failure> {
    let mut report = Report { is_recognised: format.is_none(), ..Report::default() };
    let folder = match into {
        Destination::Memory => std::env::temp_dir(),
        Destination::Folder(folder) => Path::to_path_buf(folder),
    };
    let compiler = Compiler::new(expected_size(files)?, folder);
    let mut collector = Collector { compiler, guard, exception: EXEMPT, several: Vec::new() };
    let formats = formats_of(files, format)?;
    let mut switched_off = switched_off(files, &formats, settings.max_bytes)?;
    let mut remaining = settings.max_bytes;
    for (file, &format) in files.iter().zip(&formats) {
        let mut reader = Reader::new(Settings { format, ..settings });
        reader.switch_off(std::mem::take(&mut switched_off));
        collector.exception = rule_of_exceptions(settings.exceptions, format);
        let mut naming = 0;
        let before: u32 = report.sources.iter().map(|(_, summary)| summary.lines).sum();
        let mut last = 0;
        let take_line = |number: u32, line: Option<&[u8]>| {
            last = number;
            let value = line.unwrap_or_default();
            match collector.take(&mut reader, line, before.saturating_add(number))? {
                Ok(Line::Silent) => report.silent += 1,
                Ok(Line::Names { repaired, is_exception, .. }) => {
                    naming += 1;
                    report.exceptions += u64::from(is_exception);
                    report.accept(&file.label, number, value, repaired);
                }
                Err(reason) => report.reject(&file.label, number, value, reason),
            }
            Ok(())
        };
        let summary = files::read(file, remaining, files::MAX_LINE, take_line, |bytes| progress.add(bytes))?;
        remaining -= summary.bytes;
        if let Err(reason) = reader.end() {
            report.silent -= 1; // it was counted as a part of the record
            report.reject(&file.label, last, b"", reason);
        }
        report.sources.push((file.label.clone(), summary));
        report.formats.push((format, naming));
        switched_off = reader.take_switched_off();
    }
    reject_unused(&switched_off, files, &mut report);
    let compiled = collector.compiler.finish(&RULES_ARE_EXCEPTIONS, into, compared_with)?;
    report.add_compiled(&compiled);
    Ok((compiled, report))
}

/// An estimate of the uncompressed size of all files.
pub fn expected_size(files: &[ListFile]) -> io::Result<u64> {
    let mut expected = 0;
    for file in files {
        let length = std::fs::metadata(&file.path)?.len();
        expected += if files::is_gzip(file)? { length.saturating_mul(COMPRESSION) } else { length };
    }
    Ok(expected)
}

/// The format of each file. An error if a file is not text.
fn formats_of(files: &[ListFile], format: Option<Format>) -> Result<Vec<Format>, Failure> {
    let format_of = |file| {
        let head = files::head(file, HEAD)?;
        Ok(format.unwrap_or_else(|| Format::recognise(&head)))
    };
    files.iter().map(format_of).collect()
}

/// The adblock rules that other rules switch off. Either may come first, so this is a separate pass.
fn switched_off(files: &[ListFile], formats: &[Format], max_bytes: u64) -> Result<SwitchedOff, Failure> {
    let mut remaining = max_bytes;
    let mut switched_off = SwitchedOff::default();
    for (place, file) in files.iter().enumerate().filter(|(place, _)| formats[*place] == Format::Adblock) {
        let add = |number, line: Option<&[u8]>| {
            switched_off.add(line.unwrap_or_default(), place, number);
            Ok(())
        };
        remaining -= files::read(file, remaining, files::MAX_LINE, add, |_| ())?.bytes;
    }
    Ok(switched_off)
}

/// Rejects the `$badfilter` lines for rules that no file has.
fn reject_unused(switched_off: &SwitchedOff, files: &[ListFile], report: &mut Report) {
    let mut unused: Vec<_> = switched_off.unused().collect();
    unused.sort_unstable(); // a hash table has no order
    for (file, number) in unused {
        let reason = Reason::LostException("`$badfilter` for a rule that this list does not have");
        report.silent -= 1;
        report.reject(&files[file].label, number, b"", reason);
    }
}

fn rule_of_exceptions(exceptions: Exceptions, format: Format) -> u32 {
    match (exceptions, format) {
        (Exceptions::Listed, _) => LISTED,
        (Exceptions::Exemption, _) => EXEMPT,
        // RPZ: a passthru in one policy zone ends the search.
        (Exceptions::Passthru, _) | (Exceptions::AsFormat, Format::Rpz) => PASSTHRU,
        (Exceptions::AsFormat, _) => EXEMPT,
    }
}

/// Passes the names of accepted lines to the compiler.
struct Collector<'a> {
    compiler: Compiler<'static>,
    guard: &'a NameGuard,
    /// The rule of exceptions.
    exception: u32,
    /// All names of a line that has several.
    several: Vec<(Name, Match, bool)>,
}

impl Collector<'_> {
    /// Takes a line as a whole or not at all. The outer error is an error of the disk.
    fn take(
        &mut self,
        reader: &mut Reader,
        line: Option<&[u8]>,
        number: u32,
    ) -> io::Result<Result<Line, Reason>> {
        let Some(line) = line else { return Ok(Err(Reason::LineTooLong)) };
        self.several.clear();
        let mut first = None;
        let mut reason = None;
        let read = reader.read(line, &mut |name, scope, is_exception| {
            if let Some((scope, is_exception)) = first.take() {
                // The previous name was the first of several. The compiler still has it.
                let name = Name::from_text(self.compiler.walked().text().as_bytes());
                self.several.extend(name.map(|name| (name, scope, is_exception)));
            }
            let walk = self.compiler.walk(name);
            reason = reason.or(self.guard.reason(name, walk, scope, is_exception));
            if self.several.is_empty() {
                first = Some((scope, is_exception));
            } else {
                self.several.push((name.clone(), scope, is_exception));
            }
        });
        let repaired = match (read, reason) {
            (Ok(Line::Names { repaired, .. }), None) => repaired,
            (Ok(Line::Names { .. }), Some(reason)) => return Ok(Err(reason)),
            (read, _) => return Ok(read),
        };
        let shares_line = !self.several.is_empty();
        let origin = Origin { line: number, is_repaired: !repaired.is_empty(), shares_line };
        if let Some((scope, is_exception)) = first {
            self.compiler.add(scope, self.rule(is_exception), origin)?;
        }
        for (name, scope, is_exception) in &self.several {
            self.compiler.walk(name);
            self.compiler.add(*scope, self.rule(*is_exception), origin)?;
        }
        Ok(read)
    }

    fn rule(&self, is_exception: bool) -> u32 {
        if is_exception { self.exception } else { LISTED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::Repairs;
    use crate::list::reader::tests::settings;

    fn compiled(texts: &[&str], format: Option<Format>) -> (Compiled, Report) {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for (place, text) in texts.iter().enumerate() {
            let path = folder.path().join(place.to_string());
            std::fs::write(&path, text).unwrap();
            files.push(ListFile { label: format!("file{place}"), path });
        }
        let names = |text: &[u8]| vec![Name::from_text(text).unwrap()];
        let guard = NameGuard::new(&names(b"co.id"), &[], &[], &names(b"isp.example"));
        let (progress, into) = (Progress::default(), Destination::Memory);
        let repairs = Repairs::CASE | Repairs::CRLF | Repairs::DOT;
        let settings = Settings { repairs, ..settings(Format::Plain) };
        let compiled = compile(&files, settings, format, &guard, into, None, &progress).unwrap();
        assert_eq!(progress.bytes(), texts.iter().map(|text| text.len() as u64).sum::<u64>());
        compiled
    }

    #[test]
    fn every_line_is_counted_once() {
        let first = "# head\na.example\nB.example\n\na.example\nb.example\nbad name\nco.id\n";
        let second = "c.example\r\nisp.example\na.example.\nd.example";
        let (compiled, report) = compiled(&[first, second], None);
        assert_eq!(
            (report.formats.clone(), report.is_recognised),
            (vec![(Format::Plain, 4), (Format::Plain, 3)], true)
        );
        assert_eq!((report.lines, report.silent), (10, 2));
        assert_eq!((report.accepted, report.repaired, report.duplicate, report.rejected), (2, 2, 3, 3));
        assert_eq!(report.accepted + report.repaired + report.duplicate + report.rejected, report.lines);
        assert_eq!(compiled.names.entries(), 4);
        let rejected: Vec<_> = report.rejected_by.into_iter().collect();
        assert_eq!(rejected, [("bad_character", 1), ("protected", 1), ("public_suffix", 1)]);
        let places = |findings: &[crate::list::Finding]| {
            let place = |one: &crate::list::Finding| format!("{}:{} {}", one.label, one.line, one.text);
            findings.iter().map(place).collect::<Vec<_>>()
        };
        assert_eq!(places(&report.rejected_lines).len(), 1);
        assert_eq!(report.left_out_lines.len(), 2);
        let duplicates = places(&report.duplicate_lines);
        let expected = [
            "file0:5 duplicate of line 2",
            "file0:6 duplicate of line 3",
            "file1:3 duplicate of line 2 of file0",
        ];
        assert_eq!(duplicates, expected);
        assert!(!report.sources[1].1.ends_with_line_feed && report.sources[0].1.ends_with_line_feed);
    }

    #[test]
    fn a_record_without_an_end_is_one_rejected_line() {
        let zone = "@ SOA a. b. 1 2 3 4 5\na.example CNAME .\nb.example TXT (\n  \"x\"\n  \"y\"\n";
        let (compiled, report) = compiled(&[zone], Some(Format::Rpz));
        assert_eq!((report.accepted, report.rejected, report.silent, report.lines), (2, 1, 2, 3));
        assert_eq!((compiled.names.entries(), report.rejected_lines[0].line), (2, 5));
    }

    #[test]
    fn each_file_is_read_in_its_own_format() {
        let (compiled, report) = compiled(&["*.a.example\n", "b.example\n", "# nothing\n"], None);
        let formats = [(Format::Wildcard, 1), (Format::Plain, 1), (Format::Plain, 0)];
        assert_eq!(report.formats, formats);
        let mut words: Vec<String> = compiled.names.scopes().iter().map(|scope| scope.word()).collect();
        words.sort();
        assert_eq!(words, ["below", "subtree"]);
    }

    #[test]
    fn a_line_with_several_names_is_one_line() {
        let hosts = "0.0.0.0 a.example b.example\n0.0.0.0 b.example a.example\n0.0.0.0 a.example c.example\n\
                     0.0.0.0 d.example co.id\n0.0.0.0 e.example bad..example\n0.0.0.0 f.example F.example\n";
        let (compiled, report) = compiled(&[hosts], Some(Format::Hosts));
        assert_eq!((report.accepted, report.repaired, report.duplicate, report.rejected), (2, 1, 1, 2));
        assert_eq!((report.lines, compiled.names.entries()), (6, 4));
    }
}
