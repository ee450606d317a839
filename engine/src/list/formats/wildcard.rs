//! One name per line, where a bare name does not include the names below it:
//!
//! ```text
//! ads.example      # only this name
//! *.ads.example    # only the names below it
//! ```
//!
//! With `match: subtree`, both lines list the name and all names below it.

use super::{Entry, TakeEntry, plain};
use crate::list::Reason;
use crate::policy::Match;

pub fn parse(line: &[u8], are_subtrees: bool, take: &mut impl TakeEntry) -> Result<(), Reason> {
    plain::parse(line, Match::Exact, &mut |entry: Entry<'_>| match are_subtrees {
        true => take(Entry { scope: Match::Subtree, ..entry }),
        false => take(entry),
    })
}
