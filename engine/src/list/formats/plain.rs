//! One name per line, with comments:
//!
//! ```text
//! ads.example      # the name and all names below it; `match` changes this
//! *.ads.example    # only the names below it
//! ```

use super::{Entry, TakeEntry};
use crate::list::{Reason, tokens::without_comment};
use crate::policy::Match;

pub fn parse(line: &[u8], scope: Match, take: &mut impl TakeEntry) -> Result<(), Reason> {
    match without_comment(line).trim_ascii() {
        b"" => Ok(()),
        name => take(Entry::wildcard(name, scope)),
    }
}
