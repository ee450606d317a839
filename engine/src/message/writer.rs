//! Writes responses. It never overruns: a response that does not fit is truncated.

use super::{CLASS_IN, HEADER, Head, Hop, OPT_HEADER, edns_flag, flag, is_truncated, option, rtype, u16_at};

/// Appends to a message. Its functions return `None` if that would overrun.
pub struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

/// The section of a record, by the offset of its count in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Answer = 6,
    Authority = 8,
    Additional = 10,
}

impl Section {
    /// In the order of a message.
    pub const ALL: [Section; 3] = [Section::Answer, Section::Authority, Section::Additional];
}

/// An extended DNS error (RFC 8914 2).
#[derive(Clone, Copy, Default)]
pub struct ExtendedError<'a> {
    pub code: u16,
    /// EXTRA-TEXT.
    pub text: &'a [u8],
    /// Used if the text does not fit.
    pub brief: &'a [u8],
}

impl ExtendedError<'_> {
    pub fn new(code: u16, text: &[u8]) -> ExtendedError<'_> {
        ExtendedError { code, text, brief: b"" }
    }
}

/// The OPT record of a response.
pub struct Opt<'a> {
    /// Our own UDP payload size, not the client's.
    pub payload: u16,
    /// All twelve bits (RFC 6891 6.1.3).
    pub rcode: u16,
    /// The upstream's flags that are in `edns_flag::PASSED`.
    pub flags: u16,
    pub errors: &'a [ExtendedError<'a>],
}

impl Opt<'_> {
    pub fn plain(payload: u16, rcode: u16) -> Opt<'static> {
        Opt { payload, rcode, flags: 0, errors: &[] }
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Writer<'a> {
        Writer { out, at: 0 }
    }

    /// Begins a response of our own: QR, RA, and the client's opcode, RD and CD. AA and AD are
    /// clear, since we neither own the zone nor validate (RFC 6840 5.7, 5.8).
    pub fn respond(head: &Head, rcode: u16, out: &'a mut [u8]) -> Option<Writer<'a>> {
        let copied = head.flags & (flag::OPCODE | flag::RD | flag::CD);
        let flags = flag::QR | flag::RA | copied | (rcode & flag::RCODE);
        let questions = u16::from(head.question_length > 0);
        let mut writer = Writer::new(out);
        for word in [head.id, flags, questions, 0, 0, 0] {
            writer.put(&word.to_be_bytes())?;
        }
        writer.put(head.question())?;
        Some(writer)
    }

    /// Begins with the header and question of another message, without its record counts.
    pub fn copy(head: &[u8], out: &'a mut [u8]) -> Option<Writer<'a>> {
        let mut writer = Writer::new(out);
        writer.put(head)?;
        writer.out.get_mut(Section::Answer as usize..HEADER)?.fill(0);
        Some(writer)
    }

    /// The message so far.
    pub fn written(&mut self) -> &mut [u8] {
        &mut self.out[..self.at]
    }

    pub fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at + bytes.len();
        self.out.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    /// Adds a record of class IN. Its owner name is the suffix of QNAME that begins at the offset
    /// `owner`, as a compression pointer.
    pub fn put_record(
        &mut self,
        section: Section,
        owner: usize,
        rtype: u16,
        ttl: u32,
        rdata: &[&[u8]],
    ) -> Option<()> {
        self.put_record_of_class(CLASS_IN, section, owner, rtype, ttl, rdata)
    }

    /// Adds a record of class IN whose owner is a name in wire format.
    pub fn put_record_of(
        &mut self,
        section: Section,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        rdata: &[&[u8]],
    ) -> Option<()> {
        self.put(owner)?;
        self.put_rest(CLASS_IN, section, rtype, ttl, rdata)
    }

    /// The same as `put_record` for any class.
    pub fn put_record_of_class(
        &mut self,
        class: u16,
        section: Section,
        owner: usize,
        rtype: u16,
        ttl: u32,
        rdata: &[&[u8]],
    ) -> Option<()> {
        let pointer = 0xc000 | (HEADER + owner) as u16;
        self.put(&pointer.to_be_bytes())?;
        self.put_rest(class, section, rtype, ttl, rdata)
    }

    fn put_rest(
        &mut self,
        class: u16,
        section: Section,
        rtype: u16,
        ttl: u32,
        rdata: &[&[u8]],
    ) -> Option<()> {
        let length: usize = rdata.iter().map(|part| part.len()).sum();
        for word in [rtype, class] {
            self.put(&word.to_be_bytes())?;
        }
        self.put(&ttl.to_be_bytes())?;
        self.put(&u16::try_from(length).ok()?.to_be_bytes())?;
        for part in rdata {
            self.put(part)?;
        }
        self.count(section, 1);
        Some(())
    }

    /// Adds an OPT record (RFC 6891 6.1.2). `text` selects the text of each error.
    fn put_opt(
        &mut self,
        opt: &Opt<'_>,
        dnssec_ok: bool,
        hop: &Hop,
        text: impl for<'e> Fn(&'e ExtendedError<'_>) -> &'e [u8],
    ) -> Option<()> {
        self.put_opt_header(opt, dnssec_ok)?;
        self.put_counted(|writer| {
            writer.put_errors(opt.errors, text)?;
            if let Some(cookie) = &hop.cookie {
                writer.put_option(option::COOKIE, &[cookie])?;
            }
            if let Some(keepalive) = hop.keepalive {
                writer.put_option(option::TCP_KEEPALIVE, &[&keepalive.to_be_bytes()])?;
            }
            Some(())
        })
    }

    /// Adds extended errors as options.
    pub fn put_errors(
        &mut self,
        errors: &[ExtendedError<'_>],
        text: impl for<'e> Fn(&'e ExtendedError<'_>) -> &'e [u8],
    ) -> Option<()> {
        errors.iter().try_for_each(|error| {
            self.put_option(option::EXTENDED_ERROR, &[&error.code.to_be_bytes(), text(error)])
        })
    }

    /// Adds an OPT record up to its options.
    pub(super) fn put_opt_header(&mut self, opt: &Opt<'_>, dnssec_ok: bool) -> Option<()> {
        self.put(&[0, 0, rtype::OPT as u8])?;
        self.put(&opt.payload.to_be_bytes())?;
        self.put(&[(opt.rcode >> 4) as u8, 0])?;
        self.put(&(opt.flags | if dnssec_ok { edns_flag::DO } else { 0 }).to_be_bytes())
    }

    fn put_option(&mut self, code: u16, parts: &[&[u8]]) -> Option<()> {
        self.put(&code.to_be_bytes())?;
        self.put_counted(|writer| parts.iter().try_for_each(|part| writer.put(part)))
    }

    /// Adds what `write` adds, preceded by its length as a 16-bit field.
    pub fn put_counted(&mut self, write: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        let start = self.at + 2;
        self.put(&[0, 0])?;
        write(self)?;
        let length = u16::try_from(self.at - start).ok()?;
        self.out[start - 2..start].copy_from_slice(&length.to_be_bytes());
        Some(())
    }

    /// Replaces AA, RA and AD.
    pub fn set_flags(&mut self, flags: u16) {
        const SET: u16 = flag::AA | flag::RA | flag::AD;
        let before = u16_at(self.out, 2).unwrap_or(0);
        self.out[2..4].copy_from_slice(&((before & !SET) | (flags & SET)).to_be_bytes());
    }

    pub fn count(&mut self, section: Section, records: u16) {
        let at = section as usize;
        let before = u16_at(self.out, at).unwrap_or(0);
        self.out[at..at + 2].copy_from_slice(&(before + records).to_be_bytes());
    }

    /// As `finish`, but `None` if the response is truncated over TCP: the client has no other
    /// transport to try (RFC 7766 5).
    pub fn finish_whole(mut self, head: &Head, opt: &Opt<'_>) -> Option<usize> {
        let length = self.end(head, opt);
        (!head.hop.transport.is_tcp() || !is_truncated(self.out)).then_some(length)
    }

    /// Ends a response within the size limit of its hop (RFC 2181 9, RFC 6891 6.2.5); returns its
    /// length. Texts of errors are omitted first; over TCP, then all options, since there is no
    /// larger transport. A response that still does not fit becomes an empty one with TC.
    pub fn finish(mut self, head: &Head, opt: &Opt<'_>) -> usize {
        self.end(head, opt)
    }

    fn end(&mut self, head: &Head, opt: &Opt<'_>) -> usize {
        let limit = head.hop.limit;
        let Some(edns) = head.edns else {
            if self.at > limit {
                self.truncate(head);
            }
            return self.at;
        };
        let opt = &Opt { flags: opt.flags & edns.passed, ..*opt };
        let texts: [fn(&ExtendedError<'_>) -> usize; 2] =
            [|error| error.text.len(), |error| error.brief.len()];
        let [whole, brief] = texts.map(|length| opt.errors.iter().map(length).sum::<usize>());
        let bare = OPT_HEADER + 6 * opt.errors.len() + head.hop.options_length();
        if head.hop.transport.is_tcp() && self.at + bare > limit && self.at + OPT_HEADER <= limit {
            let plain = Opt { errors: &[], ..*opt };
            let put = self.put_opt(&plain, edns.dnssec_ok, &Hop::default(), |_| b"");
            put.expect("its length was checked");
            self.count(Section::Additional, 1);
            return self.at;
        }
        if self.at + bare > limit {
            self.truncate(head);
        }
        let start = self.at;
        let space = limit.saturating_sub(self.at + bare);
        let put = match space {
            space if whole <= space => self.put_opt(opt, edns.dnssec_ok, &head.hop, |error| error.text),
            space if brief <= space => self.put_opt(opt, edns.dnssec_ok, &head.hop, |error| error.brief),
            _ => self.put_opt(opt, edns.dnssec_ok, &head.hop, |_| b""),
        };
        match put {
            Some(()) => self.count(Section::Additional, 1),
            None => self.at = start,
        }
        self.at
    }

    /// Removes all records and sets TC.
    pub fn truncate(&mut self, head: &Head) {
        self.at = HEADER + head.question_length as usize;
        self.out[2] |= (flag::TC >> 8) as u8;
        self.out[6..HEADER].fill(0);
    }
}
