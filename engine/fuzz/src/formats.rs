//! Any bytes as a list in each of the formats. A line is accepted as a whole or not at all, and each
//! accepted name is one that a client can query.

use _engine::list::{Exceptions, Format, Line, Reader, Repairs, Settings};
use _engine::name::Name;

pub fn check(text: &[u8]) {
    Format::recognise(text);
    let all = Repairs::ALL.into_iter().fold(Repairs::NONE, |all, (repair, _)| all | repair);
    for (format, _) in Format::ALL {
        for repairs in [Repairs::NONE, all] {
            let (scope, column, separator) = (None, 1, b',');
            let (exceptions, max_bytes) = (Exceptions::AsFormat, u64::MAX);
            let settings = Settings { format, scope, column, separator, repairs, exceptions, max_bytes };
            check_lines(&mut Reader::new(settings), text);
        }
    }
}

fn check_lines(reader: &mut Reader, text: &[u8]) {
    for line in text.split(|&byte| byte == b'\n') {
        let mut taken = 0;
        let read = reader.read(line, &mut |name, _, _| {
            taken += 1;
            let text = name.to_string();
            assert_eq!(Name::from_text(text.as_bytes()).as_ref(), Ok(name), "as text it is the same name");
            let last = text.rsplit('.').next().unwrap_or_default();
            assert!(name.labels() > 1 && !is_number(last), "{name} is not below a top-level domain");
        });
        match read {
            Ok(Line::Names { names, .. }) => assert_eq!(names, taken),
            Ok(Line::Silent) => assert_eq!(taken, 0),
            Err(reason) => {
                assert_eq!(taken, 0, "a rejected line lists nothing");
                assert!(!reason.code().is_empty() && !reason.to_string().is_empty());
            }
        }
    }
}

/// RFC 1123 2.1: no top-level domain is a number. inet_aton(3) reads hexadecimal numbers, too.
fn is_number(label: &str) -> bool {
    label.chars().all(|c| c.is_ascii_digit())
        || label.strip_prefix("0x").is_some_and(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))
}
