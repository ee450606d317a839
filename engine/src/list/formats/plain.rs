//! One name a line; `*.name` is what is below it. `#` begins a comment.

use super::Entry;
use crate::list::{Reason, tokens::without_comment};
use crate::policy::Match;

pub fn read(
    line: &[u8],
    scope: Match,
    list: &mut impl FnMut(Entry) -> Result<(), Reason>,
) -> Result<(), Reason> {
    match without_comment(line).trim_ascii() {
        b"" => Ok(()),
        name => list(Entry::wildcard(name, scope)),
    }
}
