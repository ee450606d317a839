//! A panic in the packet path costs one packet, and is counted. The thread continues with the next
//! packet. Needs the feature `failpoints`.
#![cfg(feature = "failpoints")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use _engine::engine::Engine;
use _engine::list;
use _engine::message::{Soa, flag, rcode, u16_at};
use _engine::name::Name;
use _engine::policy::{Action, Answer, PlacedZone, Rule, Snapshot};
use _engine::prefix::{Prefix, Prefixes};
use _engine::rules::Rules;
use _engine::shared::Settings;
use _engine::transport::listeners::Inherited;
use _engine::transport::tcp;
use _engine::upstream::{self, Server};

/// Only a fault lets a test wait so long: a busy machine may stop a thread for seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Failpoints apply to the whole process, so these tests run one at a time.
static TURN: Mutex<()> = Mutex::new(());

fn query(id: u8, label: &[u8]) -> Vec<u8> {
    let mut packet = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, label.len() as u8];
    packet.extend_from_slice(label);
    packet.extend_from_slice(b"\x07example\0\0\x01\0\x01");
    packet
}

/// One worker thread. The test is its upstream.
fn start(upstream: SocketAddr) -> Engine {
    let name = |text: &str| Name::from_text(text.as_bytes()).unwrap();
    let everyone = Prefixes::new([Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 }]);
    let settings = Settings {
        upstream: upstream::Settings {
            servers: vec![Server { address: upstream, weight: 1, order: 0, place: 0 }],
            tries: 1,
            timeout: TIMEOUT,
            max_outstanding: 100,
            payload: 1232,
            ..upstream::Settings::default()
        },
        tcp: tcp::Limits {
            connections: 10,
            per_client: 10,
            per_network: None,
            pipelined: 10,
            idle: TIMEOUT,
            read: TIMEOUT,
        },
    };
    let rules = Rules {
        clients: everyone.clone(),
        exempt: everyone,
        max_payload: 1232,
        soa: Soa(name("localhost"), name("nobody.invalid")),
        ..Rules::default()
    };
    let answer = Answer::without_data(Action::Nodata, 30, None);
    let rule = Rule::Answer { answer: Arc::new(answer), reference: "".into(), structured: None };
    let zone = list::entries("z", vec![rule], b"subtree 0 blocked.example").unwrap();
    let zone = PlacedZone {
        zone: Arc::new(zone),
        next_change_at: None,
        judges_targets: true,
        is_shadow: false,
        clients: None,
        is_list: false,
    };
    let listen = [SocketAddr::from(([127, 0, 0, 1], 0))];
    let engine = Engine::bind(&listen, 1, settings, Inherited::default()).unwrap();
    engine.start(Arc::new(Snapshot::new(vec![zone], 1)), Arc::new(rules)).unwrap();
    engine
}

fn panics(engine: &Engine) -> u64 {
    engine.counters().iter().map(|counters| counters.panics.get()).sum()
}

fn client(engine: &Engine) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(engine.listening()[0].address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("an answer");
    buffer[..length].to_vec()
}

fn upstream() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

/// Receives one query, and answers with its question only.
fn answer_one(upstream: &UdpSocket) {
    let mut buffer = [0; 4096];
    let (length, from) = upstream.recv_from(&mut buffer).expect("a query");
    buffer[2..4].copy_from_slice(&(flag::QR | flag::RD | flag::RA).to_be_bytes());
    upstream.send_to(&buffer[..length], from).unwrap();
}

#[test]
fn a_panic_on_a_query_loses_only_that_query() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let upstream = upstream();
    let engine = start(upstream.local_addr().unwrap());
    let client = client(&engine);
    fail::cfg("decide", "1*panic").unwrap();
    for id in 1..=3 {
        client.send(&query(id, b"blocked")).unwrap();
    }
    assert_eq!([receive(&client)[1], receive(&client)[1]], [2, 3], "only the first one is lost");
    assert_eq!(panics(&engine), 1);
    assert_eq!(engine.running(), 1);
}

#[test]
fn a_panic_on_a_response_loses_only_that_response() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let upstream = upstream();
    let engine = start(upstream.local_addr().unwrap());
    let client = client(&engine);
    fail::cfg("finish", "1*panic").unwrap();
    for (id, label) in [(1, b"one"), (2, b"two")] {
        client.send(&query(id, label)).unwrap();
    }
    answer_one(&upstream);
    answer_one(&upstream);
    assert_eq!(receive(&client)[1], 2);
    assert_eq!(panics(&engine), 1);
}

#[test]
fn a_connection_works_after_a_panic() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let upstream = upstream();
    let engine = start(upstream.local_addr().unwrap());
    let mut stream = TcpStream::connect(engine.listening()[0].address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut ask = |id, label: &[u8]| {
        let query = query(id, label);
        stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).unwrap();
    };
    fail::cfg("decide", "1*panic").unwrap();
    ask(1, b"blocked");
    fail::cfg("finish", "1*panic").unwrap();
    ask(2, b"lost");
    answer_one(&upstream);
    ask(3, b"found");
    answer_one(&upstream);
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut response = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut response).unwrap();
    assert_eq!(response[1], 3, "only the first two are lost");
    assert_eq!(u16_at(&response, 2).unwrap() & flag::RCODE, rcode::NOERROR);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "closed, because no response is outstanding");
    assert_eq!(panics(&engine), 2);
}
