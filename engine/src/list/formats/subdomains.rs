//! One name per line, usually with a leading dot. Each line lists the name and all names below it:
//!
//! ```text
//! .ads.example
//! ads.example
//! ```

use super::{Entry, TakeEntry, plain};
use crate::list::Reason;
use crate::policy::Match;

pub fn parse(line: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
    plain::parse(line, Match::Subtree, &mut |entry: Entry<'_>| {
        let name = entry.name.strip_prefix(b".").unwrap_or(entry.name);
        take(Entry { name, ..entry })
    })
}
