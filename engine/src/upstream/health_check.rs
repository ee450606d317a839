//! One health check: a query that every recursive resolver can answer, from a socket of its own. The
//! response is checked as all responses are.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::Settings;
use super::client_identity::{ClientIdentity, MAX_HEADER};
use super::edns::may_refuse_opt;
use super::health::CheckResult;
use crate::message::{HEADER, MAX_QUESTION, Transport, flag, rcode, rtype, u16_at};
use crate::name::Name;
use crate::relay;
use crate::sys::DATAGRAM;
use crate::transport::sockets::connect_udp;

/// The settings of health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    question: Vec<u8>,
    pub interval: Duration,
    pub timeout: Duration,
    /// Consecutive failed checks that mark an upstream down, and good ones that mark it up again.
    pub failures: u32,
    pub successes: u32,
}

impl HealthCheck {
    /// `counts` are `failures` and `successes`.
    pub fn new(
        name: &Name,
        qtype: u16,
        interval: Duration,
        timeout: Duration,
        counts: (u32, u32),
    ) -> HealthCheck {
        let (failures, successes) = counts;
        const CLASS_IN: [u8; 2] = [0, 1];
        let question = [name.suffix(0), &qtype.to_be_bytes(), &CLASS_IN].concat();
        HealthCheck { question, interval, timeout, failures, successes }
    }

    /// The query: recursion desired, our own OPT record if any, and no client in a PROXY header.
    fn message(&self, id: u16, payload: Option<u16>, identity: ClientIdentity) -> Vec<u8> {
        let mut header = [0; MAX_HEADER];
        let length = identity.write_header(None, Transport::Udp, &mut header);
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

/// A check without a result yet.
pub struct OutstandingCheck {
    pub socket: UdpSocket,
    pub sent_at: Instant,
    pub opt_use: OptUse,
    id: u16,
}

/// Whether a check has an OPT record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptUse {
    With,
    /// The upstream is known to refuse OPT.
    Without,
    /// The upstream has just refused a check, perhaps because of its OPT.
    Retry,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckResponse {
    Result(CheckResult),
    /// The upstream may not understand EDNS.
    RefusesOpt,
}

impl OutstandingCheck {
    pub fn send(
        check: &HealthCheck,
        address: SocketAddr,
        settings: &Settings,
        opt_use: OptUse,
        now: Instant,
    ) -> io::Result<OutstandingCheck> {
        let socket = connect_udp(address)?;
        socket.set_nonblocking(true)?;
        let id = rand::random();
        let payload = (opt_use == OptUse::With).then_some(settings.payload);
        socket.send(&check.message(id, payload, settings.client_identity))?;
        Ok(OutstandingCheck { socket, sent_at: now, opt_use, id })
    }

    /// Returns `None` while there is no matching response. Other messages are ignored (RFC 5452,
    /// section 9.1).
    pub fn read(&self, check: &HealthCheck) -> Option<io::Result<CheckResponse>> {
        let mut message = [0; DATAGRAM];
        loop {
            match self.socket.recv(&mut message) {
                Ok(length) => {
                    if let Some(response) = self.judge(&message[..length], check) {
                        return Some(Ok(response));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// SERVFAIL and refusals are bad. All other responses are good, even NXDOMAIN and truncated ones.
    fn judge(&self, message: &[u8], check: &HealthCheck) -> Option<CheckResponse> {
        if u16_at(message, 0) != Some(self.id) || !relay::answers(message, &check.question) {
            return None;
        }
        if self.opt_use == OptUse::With && may_refuse_opt(message, false) {
            return Some(CheckResponse::RefusesOpt);
        }
        Some(CheckResponse::Result(match u16_at(message, 2)? & flag::RCODE {
            rcode::FORMERR | rcode::SERVFAIL | rcode::NOTIMP | rcode::REFUSED => CheckResult::Bad,
            _ => CheckResult::Good,
        }))
    }
}

const _: () = assert!(HEADER + MAX_QUESTION < DATAGRAM, "a question fits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_a_plain_query_with_our_own_opt() {
        let second = Duration::from_secs(1);
        let check = HealthCheck::new(&Name::root(), 2, second, second, (3, 2));
        let message = check.message(0x1234, Some(1232), ClientIdentity::None);
        assert_eq!(message[..12], [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(message[12..], [0, 0, 2, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        let with_header = check.message(0x1234, Some(1232), ClientIdentity::Proxy);
        assert_eq!((with_header.len(), &with_header[16..]), (message.len() + 16, &message[..]));
        let plain = check.message(0x1234, None, ClientIdentity::None);
        assert_eq!(plain, [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]);
    }

    #[test]
    fn only_a_matching_response_counts() {
        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (second, address) = (Duration::from_secs(1), upstream.local_addr().unwrap());
        let check = HealthCheck::new(&Name::root(), 2, second, second, (3, 2));
        let settings = Settings { payload: 1232, ..Settings::default() };
        let mut sent =
            OutstandingCheck::send(&check, address, &settings, OptUse::With, Instant::now()).unwrap();
        let [high, low] = sent.id.to_be_bytes();
        let answer = |flags: u16, qtype: u8| {
            let [first, second] = flags.to_be_bytes();
            [high, low, first, second, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, qtype, 0, 1]
        };
        for code in [rcode::FORMERR, rcode::NOTIMP] {
            assert_eq!(sent.judge(&answer(flag::QR | code, 2), &check), Some(CheckResponse::RefusesOpt));
        }
        sent.opt_use = OptUse::Retry;
        let judged = |message: &[u8]| sent.judge(message, &check);
        for code in [rcode::NOERROR, rcode::NXDOMAIN, rcode::NOERROR | flag::TC] {
            assert_eq!(judged(&answer(flag::QR | code, 2)), Some(CheckResponse::Result(CheckResult::Good)));
        }
        for code in [rcode::FORMERR, rcode::SERVFAIL, rcode::NOTIMP, rcode::REFUSED] {
            assert_eq!(judged(&answer(flag::QR | code, 2)), Some(CheckResponse::Result(CheckResult::Bad)));
        }
        assert_eq!(judged(&answer(0, 2)), None);
        assert_eq!(judged(&answer(flag::QR, 1)), None);
        let mut forged = answer(flag::QR, 2);
        forged[0] ^= 1;
        assert_eq!(judged(&forged), None);
    }
}
