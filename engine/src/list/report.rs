//! What became of every line of a list: each is accepted, repaired, a duplicate, not applicable
//! or rejected, or says nothing (blank lines, comments). No line is lost.

use std::collections::BTreeMap;

use super::files::Read;
use super::{Format, Reason, Repairs};
use crate::policy::compiler::Compiled;

/// Lines that are told one by one, of each kind.
const TOLD: usize = 100;
/// Characters of a line that are shown.
const SHOWN: usize = 80;

/// One line that is worth a look.
#[derive(Clone)]
pub struct Finding {
    pub label: String,
    /// Counted from 1.
    pub line: u32,
    /// Printable, cut at 80 characters.
    pub value: String,
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub text: String,
}

#[derive(Default)]
pub struct Report {
    /// Of each file in turn, and how many of its lines name something.
    pub formats: Vec<(Format, u64)>,
    /// Whether formats were recognised, and not told.
    pub is_recognised: bool,
    /// Each file in turn.
    pub sources: Vec<(String, Read)>,
    /// Lines that say something: the sum of the five numbers that follow.
    pub lines: u64,
    pub accepted: u64,
    pub repaired: u64,
    pub duplicate: u64,
    /// Understood, and nothing that names can say.
    pub not_applicable: u64,
    pub rejected: u64,
    /// Lines that are exceptions, of those that name something.
    pub exceptions: u64,
    /// Blank lines and comments.
    pub silent: u64,
    /// Rejected lines by the code of their reason.
    pub rejected_by: BTreeMap<&'static str, u64>,
    /// The same of lines that are not applicable.
    pub not_applicable_by: BTreeMap<&'static str, u64>,
    /// Lines by what was put right in them; a line may have needed several repairs.
    pub repaired_by: BTreeMap<&'static str, u64>,
    /// The first of each kind.
    pub rejected_lines: Vec<Finding>,
    pub repaired_lines: Vec<Finding>,
    pub duplicate_lines: Vec<Finding>,
    /// Of the rejected, those that would do harm: public suffixes, protected names, networks that
    /// are far too wide.
    pub left_out_lines: Vec<Finding>,
    pub not_applicable_lines: Vec<Finding>,
    /// Of those that are not applicable, the exceptions.
    pub lost_exception_lines: Vec<Finding>,
}

impl Report {
    /// Takes a line that lists nothing, and why.
    pub fn reject(&mut self, label: &str, line: u32, value: &[u8], reason: Reason) {
        self.lines += 1;
        let (count, by) = match reason.is_not_applicable() {
            true => (&mut self.not_applicable, &mut self.not_applicable_by),
            false => (&mut self.rejected, &mut self.rejected_by),
        };
        *count += 1;
        *by.entry(reason.code()).or_default() += 1;
        let told = match reason {
            Reason::PublicSuffix | Reason::Protected | Reason::TopLevel | Reason::TooWide(_) => {
                &mut self.left_out_lines
            }
            Reason::LostException(_) => &mut self.lost_exception_lines,
            reason if reason.is_not_applicable() => &mut self.not_applicable_lines,
            _ => &mut self.rejected_lines,
        };
        if told.len() < TOLD {
            let (code, text) = (reason.code().to_string(), reason.to_string());
            told.push(Finding { label: label.to_string(), line, value: shown(value), code, text });
        }
    }

    pub fn take(&mut self, label: &str, line: u32, value: &[u8], repaired: Repairs) {
        self.lines += 1;
        if repaired.is_empty() {
            return;
        }
        for name in repaired.names() {
            *self.repaired_by.entry(name).or_default() += 1;
        }
        if self.repaired_lines.len() < TOLD {
            let names: Vec<&str> = repaired.names().collect();
            let (code, text) = (names.join(","), format!("put right: {}", names.join(", ")));
            self.repaired_lines.push(Finding {
                label: label.to_string(),
                line,
                value: shown(value),
                code,
                text,
            });
        }
    }

    /// The label of the file in which a line stands that was counted over all files, and
    /// its number there.
    pub fn place(&self, line: u32) -> (&str, u32) {
        let mut line = line;
        for (label, read) in &self.sources {
            if line <= read.lines {
                return (label, line);
            }
            line -= read.lines;
        }
        ("", line)
    }

    /// Adds what only the compiler knows: which lines repeat others.
    pub fn take_compiled(&mut self, compiled: &Compiled) {
        self.accepted = compiled.accepted;
        self.repaired = compiled.repaired;
        self.duplicate = compiled.duplicate;
        for (line, first) in &compiled.repeats {
            self.repeat(*line, *first);
        }
    }

    fn repeat(&mut self, line: u32, first: u32) {
        let ((label, line), (first_label, first)) = (self.place(line), self.place(first));
        let other = if label == first_label { String::new() } else { format!(" of {first_label}") };
        let (label, code, value) = (label.to_string(), "duplicate".to_string(), String::new());
        let text = format!("says what line {first}{other} says");
        self.duplicate_lines.push(Finding { label, line, value, code, text });
    }
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().take(SHOWN).flat_map(char::escape_debug).collect()
}
