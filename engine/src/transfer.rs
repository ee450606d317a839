//! Receives a policy zone from its primary: zone transfers by AXFR (RFC 5936) and IXFR (RFC 1995), with
//! TSIG (RFC 8945).
//!
//! No socket is here: the control plane has the connection, sends what `query` returns, and passes on what
//! it receives. The records go into a zone file, the copy of the zone. Afterwards it is compiled like any
//! zone file. The file has its name only when it is complete, so a failed transfer changes nothing.

mod changes;
mod copy;
mod records;
mod sequence;

use std::path::PathBuf;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::name::Name as WireName;
use domain::base::{Message, MessageBuilder, Serial, Ttl};
use domain::rdata::Soa;
use domain::tsig::{ClientSequence, ValidationError};

pub use copy::serial_of;
pub use records::SoaNumbers;
use sequence::Sequence;
pub use sequence::is_newer;

use crate::name::Name;
use crate::tsig::{Key, now};

/// Why a transfer failed. Nothing of it is used.
#[derive(Debug)]
pub struct Failed {
    /// A word for programs; docs/policy-zones.md lists them.
    pub code: &'static str,
    /// The fault, and advice.
    pub reason: String,
}

impl Failed {
    fn new(code: &'static str, reason: impl Into<String>) -> Failed {
        Failed { code, reason: reason.into() }
    }

    fn protocol(reason: impl Into<String>) -> Failed {
        Failed::new("PROTOCOL", reason)
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Failed {
        Failed::new("UNWRITABLE", format!("the copy of the zone: {error}: check the free space (`df -h`)"))
    }
}

/// The content of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Soa,
    /// The changes since the serial of the copy.
    Changes,
    Whole,
}

impl Wanted {
    fn rtype(self) -> Rtype {
        match self {
            Wanted::Soa => Rtype::SOA,
            Wanted::Changes => Rtype::IXFR,
            Wanted::Whole => Rtype::AXFR,
        }
    }
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The primary has nothing newer.
    Nothing,
    Incremental,
    Whole,
}

/// Where the zone comes from, and its limits.
pub struct Settings {
    pub zone: Name,
    pub key: Option<Key>,
    /// The present copy.
    pub copy: Option<PathBuf>,
    /// Where the new copy is written.
    pub into: PathBuf,
    pub max_records: u64,
    /// Of the messages, and of the copy.
    pub max_bytes: u64,
}

/// A query whose response is not complete.
struct Asked {
    id: u16,
    wanted: Wanted,
    sequence: Option<ClientSequence<Key>>,
    /// No message of the response was read yet.
    is_first: bool,
}

/// The transfer of one zone over one connection.
pub struct Transfer {
    settings: Settings,
    /// The serial of the present copy.
    serial: Option<u32>,
    asked: Option<Asked>,
    /// Received bytes that are no complete message yet.
    buffer: Vec<u8>,
    received: u64,
    sequence: Option<Sequence>,
    soa: Option<SoaNumbers>,
}

impl Transfer {
    /// Removes what an earlier transfer has left at `into`.
    pub fn new(settings: Settings) -> Transfer {
        let serial = settings.copy.as_deref().and_then(|copy| serial_of(copy, &settings.zone));
        let (asked, buffer, received, sequence, soa) = (None, Vec::new(), 0, None, None);
        Transfer { settings, serial, asked, buffer, received, sequence, soa }
    }

    /// The serial of the present copy. `None`: there is none that can be used.
    pub fn serial(&self) -> Option<u32> {
        self.serial
    }

    /// The numbers of the primary's SOA record, once it is known.
    pub fn soa(&self) -> Option<SoaNumbers> {
        self.soa
    }

    /// A query, with its length as over TCP. The zone must not have an older serial than `least`, if there is
    /// one: with several servers behind one address, one of them may be behind the others.
    pub fn query(&mut self, wanted: Wanted, least: Option<u32>) -> Result<Vec<u8>, Failed> {
        if !self.buffer.is_empty() {
            return Err(Failed::protocol("the primary sends more than the response to a query"));
        }
        self.received = 0;
        let id = rand::random();
        let mut query = MessageBuilder::new_vec();
        query.header_mut().set_id(id);
        query.header_mut().set_opcode(Opcode::QUERY);
        let name = WireName::from_octets(self.settings.zone.suffix(0)).expect("the name is valid");
        let too_long = |_| Failed::protocol("the query is too long");
        let mut query = query.question();
        query.push((name.clone(), wanted.rtype(), Class::IN)).map_err(too_long)?;
        let mut query = query.authority();
        if let (Wanted::Changes, Some(serial)) = (wanted, self.serial) {
            let (root, zero) = (WireName::root_ref(), Ttl::from_secs(0));
            let soa = Soa::new(root.clone(), root, Serial(serial), zero, zero, zero, zero);
            query.push((name, Class::IN, zero, soa)).map_err(too_long)?;
        }
        let mut query = query.additional();
        let sequence = match &self.settings.key {
            Some(key) => Some(ClientSequence::request(key.clone(), &mut query, now()).map_err(too_long)?),
            None => None,
        };
        let message = query.finish();
        self.sequence = match wanted {
            Wanted::Soa => None,
            Wanted::Changes => Some(Sequence::new(&self.settings, self.serial, least)),
            Wanted::Whole => Some(Sequence::new(&self.settings, None, least)),
        };
        self.asked = Some(Asked { id, wanted, sequence, is_first: true });
        let length = u16::try_from(message.len()).expect("a query is short");
        Ok([&length.to_be_bytes()[..], &message].concat())
    }

    /// Takes received bytes. Returns whether the response to the query is complete.
    pub fn take(&mut self, received: &[u8]) -> Result<bool, Failed> {
        self.received += received.len() as u64;
        if self.received > self.settings.max_bytes {
            return Err(self.too_large());
        }
        self.buffer.extend_from_slice(received);
        let mut at = 0;
        let mut is_complete = self.asked.is_none();
        while let Some((length, rest)) = self.buffer[at..].split_first_chunk() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some(message) = rest.get(..length) else { break };
            if is_complete {
                return Err(Failed::protocol("a message after the end of the transfer"));
            }
            let message = message.to_vec();
            at += 2 + length;
            is_complete = self.take_message(message)?;
        }
        self.buffer.drain(..at);
        Ok(is_complete)
    }

    fn too_large(&self) -> Failed {
        let limit = Grouped(self.settings.max_bytes);
        Failed::new(
            "TOO_LARGE",
            format!("more than {limit} bytes: if the zone has grown, raise `rpz.max_mb`"),
        )
    }

    fn take_message(&mut self, message: Vec<u8>) -> Result<bool, Failed> {
        let asked = self.asked.as_mut().expect("a query was sent");
        let mut message = Message::from_octets(message)
            .map_err(|_| Failed::protocol("a message that is shorter than its header"))?;
        if let Some(sequence) = &mut asked.sequence {
            sequence.answer(&mut message, now()).map_err(unsigned)?;
        }
        check_head(&message, asked, &self.settings.zone)?;
        if asked.is_first && message.header_counts().ancount() == 0 {
            return Err(Failed::protocol("a response without records: does the server serve this zone?"));
        }
        asked.is_first = false;
        let malformed = |_| Failed::protocol("a malformed message");
        let wanted = asked.wanted;
        let mut is_complete = false;
        for record in message.answer().map_err(malformed)? {
            let record = record.map_err(malformed)?;
            if is_complete {
                return Err(Failed::protocol("a record after the last SOA record"));
            }
            is_complete = match (&mut self.sequence, wanted) {
                (Some(sequence), _) => sequence.take(&record)?,
                (None, _) => match records::soa_of(&record, &self.settings.zone)? {
                    Some(soa) => {
                        self.soa = Some(soa.numbers);
                        true
                    }
                    None => return Err(Failed::protocol("a record that is not the SOA record of the zone")),
                },
            };
        }
        if is_complete {
            if let Some(soa) = self.sequence.as_ref().and_then(Sequence::soa) {
                self.soa = Some(soa);
            }
            let asked = self.asked.take().expect("a query was sent");
            // A message in between need not be signed, but the last one must.
            asked.sequence.map_or(Ok(()), |sequence| sequence.done().map_err(unsigned))?;
        }
        Ok(is_complete)
    }

    /// The records that a complete incremental transfer removes and adds; `None` of another transfer.
    pub fn changed_lines(&self) -> Option<Vec<(bool, Vec<u8>)>> {
        self.sequence.as_ref().filter(|_| self.asked.is_none())?.changed_lines()
    }

    /// Writes the new copy after a complete transfer. The kind says whether there is one.
    pub fn finish(&mut self) -> Result<Kind, Failed> {
        match self.sequence.take() {
            Some(sequence) if self.asked.is_none() => sequence.finish(&self.settings),
            _ => Err(Failed::protocol("the transfer is not complete")),
        }
    }
}

/// Checks everything but the records.
fn check_head(message: &Message<Vec<u8>>, asked: &Asked, zone: &Name) -> Result<(), Failed> {
    let header = message.header();
    if header.id() != asked.id || !header.qr() || header.opcode() != Opcode::QUERY {
        return Err(Failed::protocol("a message that is no response to the query"));
    }
    if header.rcode() != Rcode::NOERROR {
        let advice = match header.rcode() {
            Rcode::REFUSED => "allow the transfer to this server's address or key at the primary",
            Rcode::NOTAUTH => "check that the primary serves this zone, and `rpz.key`",
            Rcode::FORMERR | Rcode::NOTIMP if asked.wanted == Wanted::Changes => "it knows no IXFR",
            _ => "see the log of the primary",
        };
        return Err(Failed::new("RCODE", format!("the primary answers {}: {advice}", header.rcode())));
    }
    if asked.wanted == Wanted::Soa && !header.aa() {
        return Err(Failed::protocol(
            "an answer without authority (AA): the server does not serve this zone",
        ));
    }
    if header.tc() {
        return Err(Failed::protocol("a truncated message over TCP"));
    }
    let malformed = |_| Failed::protocol("a malformed question");
    let mut count = 0;
    for question in message.question() {
        let question = question.map_err(malformed)?;
        let is_asked = question.qtype() == asked.wanted.rtype() && question.qclass() == Class::IN;
        if !is_asked || records::name_of(question.qname())? != *zone {
            return Err(Failed::protocol("a response about another zone, class or type"));
        }
        count += 1;
    }
    // RFC 5936 2.2.1: the first message has the question. Later ones may have it.
    if count > 1 || asked.is_first && count == 0 {
        return Err(Failed::protocol("a response without its question"));
    }
    Ok(())
}

fn unsigned(error: ValidationError) -> Failed {
    let advice = match error {
        ValidationError::ServerUnsigned | ValidationError::TooManyUnsigned => {
            "configure the key at the primary, too"
        }
        ValidationError::BadTime | ValidationError::ServerBadTime { .. } => {
            "set the clocks of both servers (NTP)"
        }
        _ => "check that `rpz.key` has the name, algorithm and secret of the primary",
    };
    Failed::new("TSIG", format!("{error}: {advice}"))
}

/// A number with commas between its thousands.
struct Grouped(u64);

impl std::fmt::Display for Grouped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests;
