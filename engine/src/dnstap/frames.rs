//! Frame Streams: control frames and their fields (fstrm, `control.h`). All numbers are big-endian.

/// The content type of dnstap, which both ends must agree on.
const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
/// The longest control frame, as in fstrm.
const MAX_CONTROL: usize = 512;
/// The only field of a control frame.
const FIELD_CONTENT_TYPE: u32 = 1;

/// The type of a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Accept = 1,
    Start = 2,
    Stop = 3,
    Ready = 4,
    Finish = 5,
}

impl Control {
    const ALL: [Control; 5] =
        [Control::Accept, Control::Start, Control::Stop, Control::Ready, Control::Finish];

    /// The frame, with the escape before it.
    pub fn frame(self) -> Vec<u8> {
        let mut body = (self as u32).to_be_bytes().to_vec();
        if matches!(self, Control::Ready | Control::Start) {
            body.extend(FIELD_CONTENT_TYPE.to_be_bytes());
            body.extend((CONTENT_TYPE.len() as u32).to_be_bytes());
            body.extend(CONTENT_TYPE);
        }
        let mut frame = vec![0; 4];
        frame.extend((body.len() as u32).to_be_bytes());
        frame.extend(body);
        frame
    }
}

/// Why the bytes of a reader are not the expected control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    NotAControlFrame,
    OtherContentType,
}

/// Parses the control frame at the beginning. `None`: it is not complete yet. As in fstrm, a frame without a
/// content type accepts any.
pub fn parse(bytes: &[u8]) -> Result<Option<(Control, usize)>, Invalid> {
    let number =
        |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|four| u32::from_be_bytes(*four));
    let (escape, length) = (number(0), number(4).map(|length| length as usize));
    if escape.is_some_and(|escape| escape != 0)
        || length.is_some_and(|length| !(4..=MAX_CONTROL).contains(&length))
    {
        return Err(Invalid::NotAControlFrame);
    }
    let Some(body) = length.and_then(|length| bytes.get(8..8 + length)) else { return Ok(None) };
    let kind = number(8).and_then(|kind| Control::ALL.into_iter().find(|known| *known as u32 == kind));
    let kind = kind.ok_or(Invalid::NotAControlFrame)?;
    let (mut fields, mut types, mut is_ours) = (&body[4..], 0, false);
    while !fields.is_empty() {
        let (head, rest) = fields.split_at_checked(8).ok_or(Invalid::NotAControlFrame)?;
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (content_type, rest) = rest.split_at_checked(length).ok_or(Invalid::NotAControlFrame)?;
        if head[..4] != FIELD_CONTENT_TYPE.to_be_bytes() {
            return Err(Invalid::NotAControlFrame);
        }
        types += 1;
        is_ours |= content_type == CONTENT_TYPE;
        fields = rest;
    }
    if types > 0 && !is_ours { Err(Invalid::OtherContentType) } else { Ok(Some((kind, 8 + body.len()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_frame_is_read_as_it_was_written() {
        for control in Control::ALL {
            let frame = control.frame();
            for length in 0..frame.len() {
                assert_eq!(parse(&frame[..length]), Ok(None), "{control:?} {length}");
            }
            assert_eq!(parse(&[&frame[..], b"more"].concat()), Ok(Some((control, frame.len()))));
        }
        assert_eq!(&Control::Stop.frame()[..], b"\0\0\0\0\0\0\0\x04\0\0\0\x03");
    }

    #[test]
    fn other_bytes_are_refused() {
        let mut other = Control::Ready.frame();
        *other.last_mut().unwrap() = b'X';
        assert_eq!(parse(&other), Err(Invalid::OtherContentType));
        let wrong: [&[u8]; 6] = [
            b"HTTP/1.1 400",
            b"\0\0\0\0\0\0\0\x03\0\0\0\x01",
            b"\0\0\0\0\0\0\x02\x01\0\0\0\x01",
            b"\0\0\0\0\0\0\0\x04\0\0\0\x06",
            b"\0\0\0\0\0\0\0\x0c\0\0\0\x01\0\0\0\x02\0\0\0\0",
            b"\0\0\0\0\0\0\0\x0c\0\0\0\x01\0\0\0\x01\0\0\0\x01",
        ];
        for bytes in wrong {
            assert_eq!(parse(bytes), Err(Invalid::NotAControlFrame), "{bytes:?}");
        }
    }
}
