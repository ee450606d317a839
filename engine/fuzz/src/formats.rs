//! Any octets as a list in each of the formats: a line is taken as a whole or not at all,
//! and whatever is taken is a name that a client can ask for.

use _engine::list::{Exceptions, Format, Line, Reader, Repairs, Settings};
use _engine::name::Name;

pub fn check(text: &[u8]) {
    Format::recognise(text);
    for (format, _) in Format::ALL {
        let repairs = Repairs::ALL.into_iter().fold(Repairs::NONE, |all, (repair, _)| all | repair);
        for allowed in [Repairs::NONE, repairs] {
            let exceptions = Exceptions::AsFormat;
            let (scope, column, separator, repairs) = (None, 1, b',', allowed);
            let max_bytes = u64::MAX;
            let settings = Settings { format, scope, column, separator, repairs, exceptions, max_bytes };
            check_lines(&mut Reader::new(settings), text);
        }
    }
}

fn check_lines(reader: &mut Reader, text: &[u8]) {
    for line in text.split(|&octet| octet == b'\n') {
        let mut taken = 0;
        let read = reader.read(line, &mut |name, _, _| {
            taken += 1;
            let again = Name::from_text(name.to_string().as_bytes());
            assert_eq!(again.as_ref(), Ok(name), "what is taken can be written");
            assert!(name.labels() > 1, "{name} is a top-level domain");
        });
        match read {
            Ok(Line::Names { names, .. }) => assert_eq!(names, taken),
            Ok(Line::Nothing) => assert_eq!(taken, 0),
            Err(reason) => {
                assert_eq!(taken, 0, "a line that is refused lists nothing");
                assert!(!reason.code().is_empty() && !reason.to_string().is_empty());
            }
        }
    }
}
