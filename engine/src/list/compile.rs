//! A list's files in, its compiled names out, with a report of every line.

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

/// Octets of a file by which its format is recognised.
const HEAD: usize = 64 << 10;
/// How much larger a compressed file's text is, about.
const COMPRESSED: u64 = 8;
/// The rules of a list: what it lists, its exceptions that are holes, and those that are
/// passthrus.
pub const RULES_ARE_EXCEPTIONS: [bool; 3] = [false, true, true];
const LISTED: u32 = 0;
const EXEMPT: u32 = 1;
const PASSTHRU: u32 = 2;

/// How many octets of text were read, for somebody who waits.
#[derive(Default)]
pub struct Progress(AtomicU64);

impl Progress {
    fn note(&self, octets: usize) {
        self.0.fetch_add(octets as u64, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Compiles a list from all of its files. Without a format in `settings` each file tells
/// its own: what is beside it says nothing about what its names mean. Lines that cannot be meant are left out and reported: whether the list is
/// good enough then, the caller decides.
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
    let mut intake = Intake { compiler, guard, exception: EXEMPT, others: Vec::new() };
    let formats = formats_of(files, format)?;
    let mut switched_off = switched_off(files, &formats, settings.max_bytes)?;
    let mut most = settings.max_bytes;
    for (file, &format) in files.iter().zip(&formats) {
        let mut reader = Reader::new(Settings { format, ..settings });
        reader.switch_off(std::mem::take(&mut switched_off));
        intake.exception = rule_of_exceptions(settings.exceptions, format);
        let mut naming = 0;
        let before: u32 = report.sources.iter().map(|(_, read)| read.lines).sum();
        let mut last = 0;
        let take_line = |number: u32, line: Option<&[u8]>| {
            last = number;
            let shown = line.unwrap_or_default();
            match intake.take(&mut reader, line, before.saturating_add(number))? {
                Ok(Line::Nothing) => report.silent += 1,
                Ok(Line::Names { repaired, is_exception, .. }) => {
                    naming += 1;
                    report.exceptions += u64::from(is_exception);
                    report.take(&file.label, number, shown, repaired);
                }
                Err(reason) => report.reject(&file.label, number, shown, reason),
            }
            Ok(())
        };
        let count = |octets| progress.note(octets);
        let read = files::read(file, most, take_line, count)?;
        most -= read.octets;
        if let Err(reason) = reader.end() {
            report.silent -= 1; // it was taken for a part of the record
            report.reject(&file.label, last, b"", reason);
        }
        report.sources.push((file.label.clone(), read));
        report.formats.push((format, naming));
        switched_off = reader.take_switched_off();
    }
    report_unused(&switched_off, files, &mut report);
    let compiled = intake.compiler.finish(&RULES_ARE_EXCEPTIONS, into, compared_with)?;
    report.take_compiled(&compiled);
    Ok((compiled, report))
}

/// About how many bytes of text these files hold.
fn expected_size(files: &[ListFile]) -> io::Result<u64> {
    let mut expected = 0;
    for file in files {
        let length = std::fs::metadata(&file.path)?.len();
        expected += if files::is_gzip(file)? { length.saturating_mul(COMPRESSED) } else { length };
    }
    Ok(expected)
}

/// Rejects the lines that switch off rules which no file has.
fn report_unused(switched_off: &SwitchedOff, files: &[ListFile], report: &mut Report) {
    for (file, number) in switched_off.unused() {
        let reason = Reason::LostException("`$badfilter` for a rule that this list does not have");
        report.silent -= 1;
        report.reject(&files[file].label, number, b"", reason);
    }
}

/// An error for a file that is no text.
fn formats_of(files: &[ListFile], format: Option<Format>) -> Result<Vec<Format>, Failure> {
    let format_of = |file| {
        let head = files::head(file, HEAD)?;
        Ok(format.unwrap_or_else(|| Format::recognise(&head)))
    };
    files.iter().map(format_of).collect()
}

/// The rules of adblock that others switch off, wherever in the list these stand: that is to be
/// known before the first one is read.
fn switched_off(files: &[ListFile], formats: &[Format], most: u64) -> Result<SwitchedOff, Failure> {
    let mut most = most;
    let mut switched_off = SwitchedOff::default();
    for (place, file) in files.iter().enumerate().filter(|(place, _)| formats[*place] == Format::Adblock) {
        let note = |number, line: Option<&[u8]>| {
            switched_off.note(line.unwrap_or_default(), place, number);
            Ok(())
        };
        most -= files::read(file, most, note, |_| ())?.octets;
    }
    Ok(switched_off)
}

fn rule_of_exceptions(exceptions: Exceptions, format: Format) -> u32 {
    match exceptions {
        Exceptions::Listed => LISTED,
        Exceptions::Exemption => EXEMPT,
        Exceptions::Passthru => PASSTHRU,
        // RPZ: a passthru of one policy zone ends the search.
        Exceptions::AsFormat => {
            if format == Format::Rpz {
                PASSTHRU
            } else {
                EXEMPT
            }
        }
    }
}

/// Where the names of a line go.
struct Intake<'a> {
    compiler: Compiler,
    guard: &'a NameGuard,
    /// The rule of exceptions.
    exception: u32,
    /// Of a line with several names: all of them.
    others: Vec<(Name, Match, bool)>,
}

impl Intake<'_> {
    /// Takes a line as a whole or not at all. The outer error is of the disk.
    fn take(
        &mut self,
        reader: &mut Reader,
        line: Option<&[u8]>,
        number: u32,
    ) -> io::Result<Result<Line, Reason>> {
        let Some(line) = line else { return Ok(Err(Reason::LineTooLong)) };
        self.others.clear();
        let mut first = None;
        let mut reason = None;
        let read = reader.read(line, &mut |name, scope, is_exception| {
            if let Some((scope, is_exception)) = first.take() {
                // The one before was the first of several.
                let name = Name::from_text(self.compiler.walked().text().as_bytes());
                self.others.extend(name.map(|name| (name, scope, is_exception)));
            }
            let walk = self.compiler.walk(name);
            reason = reason.or(self.guard.reason(name, walk, scope, is_exception));
            if self.others.is_empty() {
                first = Some((scope, is_exception));
            } else {
                self.others.push((name.clone(), scope, is_exception));
            }
        });
        let repaired = match (read, reason) {
            (Ok(Line::Names { repaired, .. }), None) => repaired,
            (Ok(Line::Names { .. }), Some(reason)) => return Ok(Err(reason)),
            (read, _) => return Ok(read),
        };
        let shares_line = !self.others.is_empty();
        let origin = Origin { line: number, is_repaired: !repaired.is_empty(), shares_line };
        if let Some((scope, is_exception)) = first {
            self.compiler.add(scope, self.rule(is_exception), origin)?;
        }
        for (name, scope, is_exception) in &self.others {
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

    fn settings() -> Settings {
        let repairs = Repairs::CASE | Repairs::CRLF | Repairs::DOT;
        let exceptions = Exceptions::AsFormat;
        let (format, separator, max_bytes) = (Format::Plain, b',', u64::MAX);
        Settings { format, scope: None, column: 1, separator, repairs, exceptions, max_bytes }
    }

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
        let made = compile(&files, settings(), format, &guard, into, None, &progress).unwrap();
        assert_eq!(progress.bytes(), texts.iter().map(|text| text.len() as u64).sum::<u64>());
        made
    }

    #[test]
    fn every_line_is_accounted_for() {
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
        let places = |told: &[crate::list::Finding]| {
            told.iter().map(|told| format!("{}:{} {}", told.label, told.line, told.text)).collect::<Vec<_>>()
        };
        assert_eq!(places(&report.rejected_lines).len(), 1);
        assert_eq!(report.left_out_lines.len(), 2);
        let repeated = places(&report.duplicate_lines);
        let expected = [
            "file0:5 says what line 2 says",
            "file0:6 says what line 3 says",
            "file1:3 says what line 2 of file0 says",
        ];
        assert_eq!(repeated, expected);
        assert!(!report.sources[1].1.ends_with_line_feed && report.sources[0].1.ends_with_line_feed);
    }

    #[test]
    fn a_record_without_an_end_is_one_line_that_is_rejected() {
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
