//! One probe: a question that every recursive resolver can answer, from a socket of
//! its own, with an answer that is checked as all are.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::asker::{self, Tells};
use super::edns::may_refuse_opt;
use super::health::ProbeResult;
use crate::message::{HEADER, MAX_QUESTION, Transport, flag, rcode, rtype, u16_at};
use crate::name::Name;
use crate::relay;
use crate::sys::DATAGRAM;
use crate::transport::sockets::connect_udp;

/// How upstreams are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    question: Vec<u8>,
    pub interval: Duration,
    /// Patience with one probe.
    pub timeout: Duration,
    /// Probes in a row after which an upstream is down, or up again.
    pub failures: u32,
    pub successes: u32,
}

impl Probe {
    pub fn new(name: &Name, qtype: u16, interval: Duration, timeout: Duration, rows: (u32, u32)) -> Probe {
        const CLASS_IN: [u8; 2] = [0, 1];
        let question = [name.suffix(0), &qtype.to_be_bytes(), &CLASS_IN].concat();
        let (failures, successes) = rows;
        Probe { question, interval, timeout, failures, successes }
    }

    /// The message: recursion desired, our own OPT if any, and where upstreams are told
    /// who asks, that it is nobody but us.
    fn message(&self, id: u16, payload: Option<u16>, tells: Tells) -> Vec<u8> {
        let mut header = [0; asker::MAX_HEADER];
        let length =
            if tells == Tells::Proxy { asker::write_proxy(None, Transport::Udp, &mut header) } else { 0 };
        let mut message = header[..length].to_vec();
        for word in [id, flag::RD, 1, 0, 0, u16::from(payload.is_some())] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(&self.question);
        if let Some(payload) = payload {
            message.extend_from_slice(&[0, 0, rtype::OPT as u8]);
            message.extend_from_slice(&payload.to_be_bytes());
            message.extend_from_slice(&[0; 6]);
        }
        message
    }
}

/// A probe that is waited for.
pub struct UnderWay {
    pub socket: UdpSocket,
    pub sent_at: Instant,
    /// How it uses EDNS.
    pub edns: ProbeEdns,
    id: u16,
}

/// How a probe uses EDNS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeEdns {
    With,
    /// It is known that the upstream refuses OPT.
    Without,
    /// It has just answered a probe with OPT as if it refused OPT.
    SecondTry,
}

/// What the answer to a probe says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    Result(ProbeResult),
    /// Perhaps that the upstream does not understand EDNS.
    RefusesOpt,
}

impl UnderWay {
    pub fn send(
        probe: &Probe,
        address: SocketAddr,
        (payload, edns): (u16, ProbeEdns),
        tells: Tells,
        now: Instant,
    ) -> io::Result<UnderWay> {
        let socket = connect_udp(address)?;
        socket.set_nonblocking(true)?;
        let id = rand::random();
        let payload = (edns == ProbeEdns::With).then_some(payload);
        socket.send(&probe.message(id, payload, tells))?;
        Ok(UnderWay { socket, sent_at: now, edns, id })
    }

    /// What has become of it; `None` while it must be waited for. What does not fit
    /// is passed over (RFC 5452 9.1).
    pub fn read(&self, probe: &Probe) -> Option<io::Result<Said>> {
        let mut message = [0; DATAGRAM];
        loop {
            match self.socket.recv(&mut message) {
                Ok(length) => {
                    if let Some(result) = self.judge(&message[..length], probe) {
                        return Some(Ok(result));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Alive is who answers, NXDOMAIN and a cut answer included. One that says SERVFAIL,
    /// or that it does not answer such a question, is of no use.
    fn judge(&self, message: &[u8], probe: &Probe) -> Option<Said> {
        if u16_at(message, 0) != Some(self.id) || !relay::answers(message, &probe.question) {
            return None;
        }
        if self.edns == ProbeEdns::With && may_refuse_opt(message, false) {
            return Some(Said::RefusesOpt);
        }
        Some(Said::Result(match u16_at(message, 2)? & flag::RCODE {
            rcode::FORMERR | rcode::SERVFAIL | rcode::NOTIMP | rcode::REFUSED => ProbeResult::Bad,
            _ => ProbeResult::Good,
        }))
    }
}

const _: () = assert!(HEADER + MAX_QUESTION < DATAGRAM, "a question fits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_a_plain_question_with_our_own_opt() {
        let second = Duration::from_secs(1);
        let probe = Probe::new(&Name::root(), 2, second, second, (3, 2));
        let message = probe.message(0x1234, Some(1232), Tells::Nothing);
        assert_eq!(message[..12], [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(message[12..], [0, 0, 2, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        let told = probe.message(0x1234, Some(1232), Tells::Proxy);
        assert_eq!((told.len(), &told[16..]), (message.len() + 16, &message[..]));
        let plain = probe.message(0x1234, None, Tells::Nothing);
        assert_eq!(plain, [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]);
    }

    #[test]
    fn only_what_answers_it_counts() {
        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (second, address) = (Duration::from_secs(1), upstream.local_addr().unwrap());
        let probe = Probe::new(&Name::root(), 2, second, second, (3, 2));
        let edns = (1232, ProbeEdns::With);
        let mut sent = UnderWay::send(&probe, address, edns, Tells::Nothing, Instant::now()).unwrap();
        let [high, low] = sent.id.to_be_bytes();
        let answer = |flags: u16, qtype: u8| {
            let [first, second] = flags.to_be_bytes();
            [high, low, first, second, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, qtype, 0, 1]
        };
        for code in [rcode::FORMERR, rcode::NOTIMP] {
            assert_eq!(sent.judge(&answer(flag::QR | code, 2), &probe), Some(Said::RefusesOpt));
        }
        sent.edns = ProbeEdns::SecondTry;
        let judged = |message: &[u8]| sent.judge(message, &probe);
        for code in [rcode::NOERROR, rcode::NXDOMAIN, rcode::NOERROR | flag::TC] {
            assert_eq!(judged(&answer(flag::QR | code, 2)), Some(Said::Result(ProbeResult::Good)));
        }
        for code in [rcode::FORMERR, rcode::SERVFAIL, rcode::NOTIMP, rcode::REFUSED] {
            assert_eq!(judged(&answer(flag::QR | code, 2)), Some(Said::Result(ProbeResult::Bad)));
        }
        assert_eq!(judged(&answer(0, 2)), None);
        assert_eq!(judged(&answer(flag::QR, 1)), None);
        let mut forged = answer(flag::QR, 2);
        forged[0] ^= 1;
        assert_eq!(judged(&forged), None);
    }
}
