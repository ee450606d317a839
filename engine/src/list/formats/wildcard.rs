//! One name a line: `*.name` is what is below the name, a bare name itself alone.

use super::{Listed, plain};
use crate::list::Reason;
use crate::policy::Match;

pub fn read(line: &[u8], list: &mut impl FnMut(Listed) -> Result<(), Reason>) -> Result<(), Reason> {
    plain::read(line, Match::Exact, &mut |name| list(Listed::wildcard(name.text, Match::Exact)))
}
