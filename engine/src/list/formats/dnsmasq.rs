//! Lines of dnsmasq's configuration: `address=/NAME/.../ADDRESS`, and `server=` or
//! `local=` without a server. dnsmasq(8), as of version 2.86.

use super::{Entry, hosts};
use crate::list::Reason;
use crate::list::tokens::{split_once, without_comment};
use crate::policy::Match;

const EXPECTED: &str = "`address=/NAME/`, `server=/NAME/` or `local=/NAME/`";

const OTHER_OPTION: Reason = Reason::Unsupported("an option that lists no names");

pub fn read(line: &[u8], list: &mut impl FnMut(Entry) -> Result<(), Reason>) -> Result<(), Reason> {
    let line = without_comment(line).trim_ascii();
    if line.is_empty() {
        return Ok(());
    }
    let Some((option, value)) = split_once(line, b'=') else {
        // `domain-needed`, `no-resolv`: an option that is switched on.
        let is_switch = line.contains(&b'-') && is_option(line);
        return Err(if is_switch { OTHER_OPTION } else { Reason::NotThisFormat(EXPECTED) });
    };
    let forwards = match option.trim_ascii_end() {
        b"address" => false,
        b"server" | b"local" => true,
        option if is_option(option) => return Err(OTHER_OPTION),
        _ => return Err(Reason::NotThisFormat(EXPECTED)),
    };
    let (names, target) = names_and_target(value.trim_ascii_start())?;
    let is_exception = match (forwards, target) {
        // Nothing said: the name does not exist.
        (_, b"") => false,
        // The address of no machine.
        (false, b"#") => false,
        (false, address) if hosts::is_address(address) => false,
        // The servers that are asked about everything else.
        (true, b"#") => true,
        (true, _) => return Err(Reason::Unsupported("names forwarded to a server of their own")),
        (false, _) => return Err(Reason::NotThisFormat(EXPECTED)),
    };
    for name in names.split(|&octet| octet == b'/') {
        let listed = scoped(name).map_err(|reason| if is_exception { reason.of_exception() } else { reason });
        list(Entry { is_exception, ..listed? })?;
    }
    Ok(())
}

/// The shape of an option's name.
fn is_option(word: &[u8]) -> bool {
    word.first().is_some_and(u8::is_ascii_lowercase)
        && word.iter().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || *octet == b'-')
}

/// `/NAME/NAME/TARGET`.
fn names_and_target(value: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    let Some(value) = value.strip_prefix(b"/") else {
        return Err(Reason::Unsupported("a server for all names"));
    };
    let at = value.iter().rposition(|&octet| octet == b'/').ok_or(Reason::NotThisFormat(EXPECTED))?;
    Ok((&value[..at], &value[at + 1..]))
}

fn scoped(name: &[u8]) -> Result<Entry<'_>, Reason> {
    match name {
        b"#" => Err(Reason::Unsupported("a line for all names")),
        [b'*', b'.', ..] => Ok(Entry::wildcard(name, Match::Subtree)),
        // dnsmasq(8): a leading dot changes nothing.
        [b'.', name @ ..] => Ok(Entry::new(name, Match::Subtree)),
        name => Ok(Entry::new(name, Match::Subtree)),
    }
}

#[cfg(test)]
mod tests {
    use crate::list::Format;
    use crate::list::reader::tests::{code, listed};

    #[test]
    fn a_name_that_is_answered_here_is_listed() {
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
    fn the_ordinary_servers_are_an_exception() {
        assert_eq!(listed(Format::Dnsmasq, "server=/a.example/#"), "except subtree a.example");
    }

    #[test]
    fn what_is_not_about_names_is_refused() {
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
