//! Lines of dnsmasq's configuration, dnsmasq(8) as of version 2.86:
//!
//! ```text
//! address=/ads.example/0.0.0.0     # answered with an address: listed, with all names below
//! local=/a.example/b.example/      # no server: listed
//! server=/good.example/#           # the usual servers: an exception
//! server=/corp.example/192.0.2.1   # a server of its own: not applicable
//! ```

use super::{Entry, TakeEntry, hosts};
use crate::list::Reason;
use crate::list::tokens::{is_option, split_once, without_comment};
use crate::policy::Match;

const EXPECTED: &str = "`address=/NAME/`, `server=/NAME/` or `local=/NAME/`";
const OTHER_OPTION: Reason = Reason::Unsupported("an option that lists no names");

pub fn parse(line: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
    let line = without_comment(line).trim_ascii();
    if line.is_empty() {
        return Ok(());
    }
    let Some((option, value)) = split_once(line, b'=') else {
        // An option without a value, such as `domain-needed`.
        let is_flag = line.contains(&b'-') && is_option(line);
        return Err(if is_flag { OTHER_OPTION } else { Reason::NotThisFormat(EXPECTED) });
    };
    let forwards = match option.trim_ascii_end() {
        b"address" => false,
        b"server" | b"local" => true,
        option if is_option(option) => return Err(OTHER_OPTION),
        _ => return Err(Reason::NotThisFormat(EXPECTED)),
    };
    let (names, target) = names_and_target(value.trim_ascii_start())?;
    let is_exception = match (forwards, target) {
        // No target: NXDOMAIN.
        (_, b"") => false,
        // The null address.
        (false, b"#") => false,
        (false, address) if hosts::is_address(address) => false,
        // The usual servers.
        (true, b"#") => true,
        (true, _) => return Err(Reason::Unsupported("names forwarded to a server of their own")),
        (false, _) => return Err(Reason::NotThisFormat(EXPECTED)),
    };
    for name in names.split(|&byte| byte == b'/') {
        let entry = entry(name).map_err(|reason| reason.of_exception_if(is_exception))?;
        take(Entry { is_exception, ..entry })?;
    }
    Ok(())
}

/// Splits `/NAME/NAME/TARGET`.
fn names_and_target(value: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    let Some(value) = value.strip_prefix(b"/") else {
        return Err(Reason::Unsupported("a server for all names"));
    };
    let at = value.iter().rposition(|&byte| byte == b'/').ok_or(Reason::NotThisFormat(EXPECTED))?;
    Ok((&value[..at], &value[at + 1..]))
}

fn entry(name: &[u8]) -> Result<Entry<'_>, Reason> {
    match name {
        b"#" => Err(Reason::Unsupported("a line for all names")),
        // dnsmasq(8): a leading dot has no effect.
        [b'.', name @ ..] => Ok(Entry::new(name, Match::Subtree)),
        name => Ok(Entry::wildcard(name, Match::Subtree)),
    }
}

#[cfg(test)]
mod tests {
    use crate::list::Format;
    use crate::list::reader::tests::{code, listed};

    #[test]
    fn a_name_that_dnsmasq_answers_itself_is_listed() {
        for line in [
            "address=/a.example/0.0.0.0",
            "address=/a.example/::",
            "address=/a.example/",
            "address=/a.example/#",
            "address = /.a.example/127.0.0.1 # why",
            "server=/a.example/",
            "local=/a.example/",
        ] {
            assert_eq!(listed(Format::Dnsmasq, line), "subtree a.example", "{line}");
        }
        let several = "address=/a.example/*.b.example/192.0.2.1";
        assert_eq!(listed(Format::Dnsmasq, several), "subtree a.example, below b.example");
    }

    #[test]
    fn the_usual_servers_are_an_exception() {
        assert_eq!(listed(Format::Dnsmasq, "server=/a.example/#"), "except subtree a.example");
    }

    #[test]
    fn other_options_and_invalid_lines_are_rejected() {
        let code = |line| code(Format::Dnsmasq, line);
        assert_eq!(code("server=/a.example/192.0.2.1"), "unsupported");
        assert_eq!(code("server=192.0.2.1"), "unsupported");
        assert_eq!(code("address=/#/192.0.2.1"), "unsupported");
        assert_eq!(code("address=/*ads.example/"), "unsupported");
        assert_eq!(code("address=/a.example"), "not_this_format");
        assert_eq!(code("address=/a.example/b.example"), "not_this_format");
        assert_eq!(code("cache-size=1000"), "unsupported");
        assert_eq!(code("domain-needed"), "unsupported");
        assert_eq!(code("server=/#/#"), "lost_exception");
        assert_eq!(code("server=/*/#"), "lost_exception");
        assert_eq!(code("server=/com/#"), "lost_exception");
        assert_eq!(code("garbage"), "not_this_format");
        assert_eq!(code("http://a.example/?x=1"), "not_this_format");
        assert_eq!(code("a.example"), "not_this_format");
        assert_eq!(code("server=//"), "not_a_name");
        assert_eq!(code("address=/a.example//0.0.0.0"), "not_a_name");
        assert_eq!(code("address=/a.example/com/"), "top_level");
    }
}
