//! The report about the lines of a list. Each line is accepted, repaired, a duplicate, not
//! applicable or rejected, or it is silent (blank lines, comments). The counts add up.

use std::collections::BTreeMap;

use super::files::FileSummary;
use super::{Format, Reason, Repairs};
use crate::policy::compiler::Compiled;

/// Described lines of each kind; more are only counted.
const MAX_FINDINGS: usize = 100;
/// Characters of a line in a description.
const MAX_VALUE: usize = 80;

/// The description of one line.
#[derive(Clone)]
pub struct Finding {
    /// The file.
    pub label: String,
    /// Counted from 1.
    pub line: u32,
    /// The line, printable, at most 80 characters.
    pub value: String,
    /// A word for programs.
    pub code: String,
    /// A text for people.
    pub text: String,
}

#[derive(Default)]
pub struct Report {
    /// For each file: its format, and how many of its lines name something.
    pub formats: Vec<(Format, u64)>,
    /// Whether formats were recognised; otherwise the format is configured.
    pub is_recognised: bool,
    pub sources: Vec<(String, FileSummary)>,
    /// Of a zone whose file includes others: the number of a line over all files, its file, and its line there.
    /// The lines that follow are in the same file.
    pub segments: Vec<(u32, usize, u32)>,
    /// All lines that are not silent: the sum of the next five counts.
    pub lines: u64,
    pub accepted: u64,
    pub repaired: u64,
    pub duplicate: u64,
    pub not_applicable: u64,
    pub rejected: u64,
    /// Exceptions among the lines with names.
    pub exceptions: u64,
    pub silent: u64,
    /// Rejected lines by the code of their reason.
    pub rejected_by: BTreeMap<&'static str, u64>,
    /// Lines that are not applicable, by the code of their reason.
    pub not_applicable_by: BTreeMap<&'static str, u64>,
    /// Lines by repair. A line may need several repairs.
    pub repaired_by: BTreeMap<&'static str, u64>,
    pub rejected_lines: Vec<Finding>,
    pub repaired_lines: Vec<Finding>,
    pub duplicate_lines: Vec<Finding>,
    /// Rejected lines that would do harm: public suffixes, protected names, networks that are far
    /// too large.
    pub left_out_lines: Vec<Finding>,
    pub not_applicable_lines: Vec<Finding>,
    pub lost_exception_lines: Vec<Finding>,
}

impl Report {
    /// Adds a line that lists nothing.
    pub fn reject(&mut self, label: &str, line: u32, value: &[u8], reason: Reason) {
        self.lines += 1;
        let (count, by) = match reason.is_not_applicable() {
            true => (&mut self.not_applicable, &mut self.not_applicable_by),
            false => (&mut self.rejected, &mut self.rejected_by),
        };
        *count += 1;
        *by.entry(reason.code()).or_default() += 1;
        let findings = match reason {
            Reason::PublicSuffix | Reason::Protected | Reason::TopLevel | Reason::TooWide(_) => {
                &mut self.left_out_lines
            }
            Reason::LostException(_) => &mut self.lost_exception_lines,
            reason if reason.is_not_applicable() => &mut self.not_applicable_lines,
            _ => &mut self.rejected_lines,
        };
        describe(findings, (label, line), value, || (reason.code().to_string(), reason.to_string()));
    }

    /// Adds a line that lists names.
    pub fn accept(&mut self, label: &str, line: u32, value: &[u8], repaired: Repairs) {
        self.lines += 1;
        if repaired.is_empty() {
            return;
        }
        for name in repaired.names() {
            *self.repaired_by.entry(name).or_default() += 1;
        }
        describe(&mut self.repaired_lines, (label, line), value, || {
            (repaired.names().collect::<Vec<_>>().join(","), format!("repaired: {repaired}"))
        });
    }

    /// The file of a line that was counted over all files, and its number in that file.
    pub fn place(&self, line: u32) -> (&str, u32) {
        let after = self.segments.partition_point(|(first, ..)| *first <= line);
        if let Some((first, file, own)) = after.checked_sub(1).map(|place| self.segments[place]) {
            return (&self.sources[file].0, own + (line - first));
        }
        let mut line = line;
        for (label, file) in &self.sources {
            if line <= file.lines {
                return (label, line);
            }
            line -= file.lines;
        }
        ("", line)
    }

    /// Adds the counts that only the compiler knows, and the duplicate lines.
    pub fn add_compiled(&mut self, compiled: &Compiled) {
        self.accepted = compiled.accepted;
        self.repaired = compiled.repaired;
        self.duplicate = compiled.duplicate;
        let duplicates = compiled.repeats.iter().map(|(line, first)| self.duplicate_of(*line, *first));
        self.duplicate_lines = duplicates.collect();
        if compiled.conflicts > 0 {
            self.rejected += compiled.conflicts;
            *self.rejected_by.entry(Reason::Conflict.code()).or_default() += compiled.conflicts;
            let conflicts = compiled.conflicting.iter().map(|(line, first)| self.conflict(*line, *first));
            let conflicts: Vec<Finding> = conflicts.collect();
            self.rejected_lines.extend(conflicts);
            self.rejected_lines.truncate(MAX_FINDINGS);
        }
    }

    fn conflict(&self, line: u32, first: u32) -> Finding {
        let ((label, line), (first_label, first)) = (self.place(line), self.place(first));
        let value = format!("beside {first_label}:{first}");
        let (code, text) = (Reason::Conflict.code().to_string(), Reason::Conflict.to_string());
        Finding { label: label.to_string(), line, value, code, text }
    }

    fn duplicate_of(&self, line: u32, first: u32) -> Finding {
        let ((label, line), (first_label, first)) = (self.place(line), self.place(first));
        let other_file = if label == first_label { String::new() } else { format!(" of {first_label}") };
        Finding {
            label: label.to_string(),
            line,
            value: String::new(),
            code: "duplicate".to_string(),
            text: format!("duplicate of line {first}{other_file}"),
        }
    }
}

fn describe(
    findings: &mut Vec<Finding>,
    (label, line): (&str, u32),
    value: &[u8],
    texts: impl FnOnce() -> (String, String),
) {
    if findings.len() < MAX_FINDINGS {
        let (code, text) = texts();
        findings.push(Finding { label: label.to_string(), line, value: printable(value), code, text });
    }
}

/// The start of a line without control characters.
pub fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().take(MAX_VALUE).flat_map(char::escape_debug).collect()
}
