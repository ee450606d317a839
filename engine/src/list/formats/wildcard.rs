//! One name a line: `*.name` is what is below the name, a bare name itself alone. As
//! subtrees, both are the name and all below it.

use super::{Entry, plain};
use crate::list::Reason;
use crate::policy::Match;

pub fn read(
    line: &[u8],
    are_subtrees: bool,
    list: &mut impl FnMut(Entry) -> Result<(), Reason>,
) -> Result<(), Reason> {
    plain::read(line, Match::Exact, &mut |name| match are_subtrees {
        true => list(Entry { scope: Match::Subtree, ..name }),
        false => list(name),
    })
}
