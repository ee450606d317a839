//! One name a line; `*.name` is what is below it. `#` begins a comment.

use super::Listed;
use crate::list::{Reason, words::without_comment};
use crate::policy::Match;

pub fn read(
    line: &[u8],
    scope: Match,
    list: &mut impl FnMut(Listed) -> Result<(), Reason>,
) -> Result<(), Reason> {
    match without_comment(line).trim_ascii() {
        b"" => Ok(()),
        name => list(Listed::wildcard(name, scope)),
    }
}
