//! One name a line, with or without a leading dot: the name and all below it.

use super::{Entry, plain};
use crate::list::Reason;
use crate::policy::Match;

pub fn read(line: &[u8], list: &mut impl FnMut(Entry) -> Result<(), Reason>) -> Result<(), Reason> {
    plain::read(line, Match::Subtree, &mut |name| {
        let text = name.text.strip_prefix(b".").unwrap_or(name.text);
        list(Entry { text, ..name })
    })
}
