//! Writing a response. Never overruns: what does not fit turns into a truncated
//! answer.

use super::{CLASS_IN, HEADER, Head, Hop, OPT_HEAD, edns_flag, flag, option, rtype, u16_at};

/// Appends to a message under construction; `None` where it would overrun.
pub struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

/// Which of the header's counts a record is counted in.
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
    /// What is said where the text does not fit.
    pub brief: &'a [u8],
}

impl ExtendedError<'_> {
    pub fn new(code: u16, text: &[u8]) -> ExtendedError<'_> {
        ExtendedError { code, text, brief: b"" }
    }
}

/// What goes into the OPT record of a response.
pub struct Opt<'a> {
    /// Octets of UDP that we take ourselves; never an echo of the client's.
    pub payload: u16,
    /// All twelve bits (RFC 6891 6.1.3).
    pub rcode: u16,
    /// What an upstream said of `edns_flag::PASSED`.
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

    /// Begins a response of our own: QR, RA, the client's opcode, RD and CD;
    /// never AA or AD, which nobody here can vouch for (RFC 6840 5.7, 5.8).
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

    /// Begins with another message's header and question; its counts of records
    /// are taken back.
    pub fn copy(head: &[u8], out: &'a mut [u8]) -> Option<Writer<'a>> {
        let mut writer = Writer::new(out);
        writer.put(head)?;
        writer.out.get_mut(Section::Answer as usize..HEADER)?.fill(0);
        Some(writer)
    }

    /// What stands there so far.
    pub fn written(&mut self) -> &mut [u8] {
        &mut self.out[..self.at]
    }

    pub fn put(&mut self, octets: &[u8]) -> Option<()> {
        let end = self.at + octets.len();
        self.out.get_mut(self.at..end)?.copy_from_slice(octets);
        self.at = end;
        Some(())
    }

    /// Adds a record of class IN whose owner is `owner` octets into the
    /// question's name, by compression pointer.
    pub fn put_record(
        &mut self,
        section: Section,
        owner: usize,
        rtype: u16,
        ttl: u32,
        rdata: &[&[u8]],
    ) -> Option<()> {
        let pointer = 0xc000 | (HEADER + owner) as u16;
        let length: usize = rdata.iter().map(|part| part.len()).sum();
        for word in [pointer, rtype, CLASS_IN] {
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

    /// Adds an OPT record (RFC 6891 6.1.2); `text` chooses what of each error's
    /// text goes along.
    fn put_opt(
        &mut self,
        opt: &Opt<'_>,
        dnssec_ok: bool,
        hop: &Hop,
        text: impl for<'e> Fn(&'e ExtendedError<'_>) -> &'e [u8],
    ) -> Option<()> {
        self.put_opt_head(opt, dnssec_ok)?;
        self.put_counted(|writer| {
            for error in opt.errors {
                writer.put_option(option::EXTENDED_ERROR, &[&error.code.to_be_bytes(), text(error)])?;
            }
            if let Some(cookie) = &hop.cookie {
                writer.put_option(option::COOKIE, &[cookie])?;
            }
            if let Some(keepalive) = hop.keepalive {
                writer.put_option(option::TCP_KEEPALIVE, &[&keepalive.to_be_bytes()])?;
            }
            Some(())
        })
    }

    /// An OPT record up to its options.
    pub(super) fn put_opt_head(&mut self, opt: &Opt<'_>, dnssec_ok: bool) -> Option<()> {
        self.put(&[0, 0, rtype::OPT as u8])?;
        self.put(&opt.payload.to_be_bytes())?;
        self.put(&[(opt.rcode >> 4) as u8, 0])?;
        self.put(&(opt.flags | if dnssec_ok { edns_flag::DO } else { 0 }).to_be_bytes())
    }

    fn put_option(&mut self, code: u16, parts: &[&[u8]]) -> Option<()> {
        self.put(&code.to_be_bytes())?;
        self.put_counted(|writer| parts.iter().try_for_each(|part| writer.put(part)))
    }

    /// Puts what `write` puts behind a length of two octets.
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

    /// Ends a response within the limit of its hop (RFC 2181 9, RFC 6891 6.2.5):
    /// the errors' texts are left out first, over TCP then all options, since nothing
    /// larger can be had there; and what still does not fit becomes an empty answer
    /// with TC. Returns its length.
    pub fn finish(mut self, head: &Head, opt: &Opt<'_>) -> usize {
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
        let bare = OPT_HEAD + 6 * opt.errors.len() + head.hop.options_length();
        if head.hop.transport.is_tcp() && self.at + bare > limit && self.at + OPT_HEAD <= limit {
            let plain = Opt { errors: &[], ..*opt };
            let put = self.put_opt(&plain, edns.dnssec_ok, &Hop::default(), |_| b"");
            put.expect("what was measured fits");
            self.count(Section::Additional, 1);
            return self.at;
        }
        if self.at + bare > limit {
            self.truncate(head);
        }
        let before = self.at;
        let room = limit.saturating_sub(self.at + bare);
        let put = match room {
            room if whole <= room => self.put_opt(opt, edns.dnssec_ok, &head.hop, |error| error.text),
            room if brief <= room => self.put_opt(opt, edns.dnssec_ok, &head.hop, |error| error.brief),
            _ => self.put_opt(opt, edns.dnssec_ok, &head.hop, |_| b""),
        };
        match put {
            Some(()) => self.count(Section::Additional, 1),
            None => self.at = before,
        }
        self.at
    }

    /// Keeps header and question, sets TC.
    pub fn truncate(&mut self, head: &Head) {
        self.at = HEADER + head.question_length as usize;
        self.out[2] |= (flag::TC >> 8) as u8;
        self.out[6..HEADER].fill(0);
    }
}
