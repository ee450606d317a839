//! The records of one transfer, in their order on the wire: AXFR (RFC 5936 section 2.2), or IXFR (RFC 1995
//! section 4), which may also be answered as AXFR.

use domain::base::Serial;

use super::changes::Changes;
use super::copy::Copy;
use super::records::{Line, Received, SoaNumbers, ZoneSoa, soa_of};
use super::{Failed, Kind, Settings};
use crate::name::Name;

enum Stage {
    /// The first record is the zone's new SOA record.
    First,
    /// The second one says whether this is a difference or the whole zone.
    Second(ZoneSoa),
    Whole(ZoneSoa, Copy),
    /// Records to remove, up to the SOA record after this difference. `serial` is that of the zone before it.
    Removing {
        soa: ZoneSoa,
        changes: Changes,
        serial: u32,
    },
    /// Records to add. `serial` is that of the zone after this difference.
    Adding {
        soa: ZoneSoa,
        changes: Changes,
        serial: u32,
    },
    Done(ZoneSoa, Content),
}

enum Content {
    Nothing,
    Whole(Copy),
    Changes(Changes),
}

pub struct Sequence {
    /// The zone's name.
    zone: Name,
    /// The serial of the copy that changes apply to; `None`: the whole zone was asked for.
    since: Option<u32>,
    /// No zone with an older serial is taken.
    least: Option<u32>,
    copy: super::copy::Limits,
    line: Line,
    stage: Stage,
}

impl Sequence {
    pub fn new(settings: &Settings, since: Option<u32>, least: Option<u32>) -> Sequence {
        Sequence {
            zone: settings.zone.clone(),
            since,
            least,
            copy: super::copy::Limits::of(settings),
            line: Line::default(),
            stage: Stage::First,
        }
    }

    /// The numbers of the new SOA record, once the transfer is complete.
    pub fn soa(&self) -> Option<SoaNumbers> {
        match &self.stage {
            Stage::Done(soa, _) => Some(soa.numbers),
            _ => None,
        }
    }

    /// The differences of a complete incremental transfer; `None` of another one. See `Changes::lines`.
    pub fn changed_lines(&self) -> Option<Vec<(bool, Vec<u8>)>> {
        match &self.stage {
            Stage::Done(_, Content::Changes(changes)) => Some(changes.lines()),
            _ => None,
        }
    }

    /// Takes the next record. Returns whether it is the last one.
    pub fn take(&mut self, record: &Received<'_>) -> Result<bool, Failed> {
        let soa = soa_of(record, &self.zone)?;
        let stage = std::mem::replace(&mut self.stage, Stage::First);
        self.stage = self.next(stage, record, soa)?;
        Ok(matches!(self.stage, Stage::Done(..)))
    }

    fn next(&mut self, stage: Stage, record: &Received<'_>, found: Option<ZoneSoa>) -> Result<Stage, Failed> {
        match (stage, found) {
            (Stage::First, None) => {
                Err(Failed::protocol("the first record is not the SOA record of the zone"))
            }
            (Stage::First, Some(soa)) => self.begin(soa),
            (Stage::Second(soa), found) => self.second(soa, record, found),
            (Stage::Whole(soa, mut copy), None) => {
                self.line.take(record, &self.zone)?;
                copy.add(&self.line)?;
                Ok(Stage::Whole(soa, copy))
            }
            (Stage::Whole(soa, copy), Some(last)) => {
                check_last(&soa, &last)?;
                Ok(Stage::Done(soa, Content::Whole(copy)))
            }
            (Stage::Removing { soa, mut changes, serial }, None) => {
                self.line.take(record, &self.zone)?;
                changes.remove(&self.line)?;
                Ok(Stage::Removing { soa, changes, serial })
            }
            (Stage::Removing { soa, changes, serial: before }, Some(next)) => {
                let serial = next.numbers.serial;
                match is_newer(serial, before) {
                    true => Ok(Stage::Adding { soa, changes, serial }),
                    false => Err(Failed::protocol(format!("a difference from serial {before} to {serial}"))),
                }
            }
            (Stage::Adding { soa, mut changes, serial }, None) => {
                self.line.take(record, &self.zone)?;
                changes.add(&self.line)?;
                Ok(Stage::Adding { soa, changes, serial })
            }
            (Stage::Adding { soa, changes, serial }, Some(next)) => {
                check_follows(serial, next.numbers.serial)?;
                Ok(match serial == soa.numbers.serial {
                    true => Stage::Done(soa, Content::Changes(changes)),
                    false => Stage::Removing { soa, changes, serial },
                })
            }
            (Stage::Done(..), _) => Err(Failed::protocol("a record after the last SOA record")),
        }
    }

    fn begin(&self, soa: ZoneSoa) -> Result<Stage, Failed> {
        if let Some(least) = self.least.filter(|least| is_newer(*least, soa.numbers.serial)) {
            return Err(older(soa.numbers.serial, least));
        }
        match self.since {
            Some(since) if since == soa.numbers.serial => Ok(Stage::Done(soa, Content::Nothing)),
            Some(since) => check_newer(since, soa.numbers.serial).map(|()| Stage::Second(soa)),
            None => Ok(Stage::Second(soa)),
        }
    }

    /// The second record says whether differences follow or the whole zone.
    fn second(
        &mut self,
        soa: ZoneSoa,
        record: &Received<'_>,
        found: Option<ZoneSoa>,
    ) -> Result<Stage, Failed> {
        match (found.map(|found| found.numbers.serial), self.since) {
            (Some(old), Some(since)) if old == since => {
                Ok(Stage::Removing { soa, changes: Changes::new(&self.copy), serial: old })
            }
            (Some(last), None) if last == soa.numbers.serial => {
                let copy = Copy::create(&self.copy, &soa)?;
                Ok(Stage::Done(soa, Content::Whole(copy))) // a zone without any record
            }
            (Some(old), Some(since)) => {
                let text = format!("a difference from serial {old}, but the copy has {since}");
                Err(Failed::protocol(text))
            }
            (Some(_), None) => Err(Failed::protocol("two SOA records with different serials")),
            (None, _) => {
                let mut copy = Copy::create(&self.copy, &soa)?;
                self.line.take(record, &self.zone)?;
                copy.add(&self.line)?;
                Ok(Stage::Whole(soa, copy))
            }
        }
    }

    /// Writes the copy.
    pub fn finish(self, settings: &Settings) -> Result<Kind, Failed> {
        match self.stage {
            Stage::Done(_, Content::Nothing) => Ok(Kind::Nothing),
            Stage::Done(_, Content::Whole(copy)) => copy.finish().map(|()| Kind::Whole),
            Stage::Done(soa, Content::Changes(changes)) => {
                let before = settings.copy.as_deref().ok_or_else(|| Failed::protocol("no copy to change"))?;
                changes.apply(before, Copy::create(&self.copy, &soa)?).map(|()| Kind::Incremental)
            }
            _ => Err(Failed::protocol("the transfer is not complete")),
        }
    }
}

/// Whether a serial is newer than another one (RFC 1982).
pub fn is_newer(serial: u32, than: u32) -> bool {
    Serial(serial) > Serial(than)
}

fn check_newer(ours: u32, theirs: u32) -> Result<(), Failed> {
    if is_newer(theirs, ours) {
        return Ok(());
    }
    Err(older(theirs, ours))
}

fn older(theirs: u32, ours: u32) -> Failed {
    let reason = format!("serial {theirs} of the primary is older than {ours}, which is known (RFC 1982)");
    Failed::new("SERIAL", format!("{reason}: raise it at the primary, or see docs/zone-transfer.md"))
}

/// RFC 1995 section 4: a difference begins where the one before ends.
fn check_follows(ended: u32, begins: u32) -> Result<(), Failed> {
    if ended == begins {
        return Ok(());
    }
    let text = format!("a difference from serial {begins} after one to serial {ended}");
    Err(Failed::protocol(text))
}

/// RFC 5936 section 2.2: the last record is the first one again.
fn check_last(first: &ZoneSoa, last: &ZoneSoa) -> Result<(), Failed> {
    if first.data == last.data {
        return Ok(());
    }
    let (first, last) = (first.numbers.serial, last.numbers.serial);
    Err(Failed::protocol(format!(
        "it begins with the SOA record of serial {first} and ends with another one, of serial {last}"
    )))
}
