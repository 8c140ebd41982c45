//! Many members: every message of the others exactly once, in the order of each sender, the own
//! ones never.

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use prost::Message;
use ringway::protocols::im::wire::proto::CrMessageResponse;
use ringway::protocols::im::wire::{
    ByteOrder, Decoder, Gzip, HEADER_BYTES, Header, LenMode, LenRule,
};

use crate::common::Server;
use crate::support::*;

const MEMBERS: usize = 2000;
const SENDERS: usize = 20;
const MESSAGES: usize = 200;

/// What one member has seen: how many of each sender, which must come in order.
struct Seen {
    socket: TcpStream,
    buffer: Vec<u8>,
    next: [usize; SENDERS],
    count: usize,
    /// Its number, if it is a sender.
    own: Option<usize>,
}

impl Seen {
    /// Takes what has come. `None` at the end of the stream.
    fn read(&mut self, piece: &mut [u8]) -> Option<()> {
        match self.socket.read(piece) {
            Ok(0) => return None,
            Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
            Err(error) => panic!("{error}"),
        }
        while let Some(head) = self.buffer.first_chunk::<HEADER_BYTES>() {
            let header = Header::parse(head, ByteOrder::Big);
            let total = HEADER_BYTES + header.len as usize;
            let Some(frame) = self.buffer.get(..total) else { break };
            if header.command == NOTIFY {
                let notify = CrMessageResponse::decode(&frame[HEADER_BYTES..]).expect("messages");
                notify.messages.iter().for_each(|message| {
                    self.take(&message.from, &message.message_content);
                });
            }
            self.buffer.drain(..total);
        }
        Some(())
    }

    fn take(&mut self, from: &str, content: &[u8]) {
        let sender: usize = from.strip_prefix("sender-").and_then(|n| n.parse().ok()).expect("one");
        let number: usize = std::str::from_utf8(content).ok().and_then(|n| n.parse().ok()).unwrap();
        assert_ne!(Some(sender), self.own, "its own message");
        assert_eq!(number, self.next[sender], "of sender {sender}");
        self.next[sender] += 1;
        self.count += 1;
    }
}

#[test]
fn two_thousand_members_get_every_message_once_in_order() {
    let mut config = open_config();
    config.im.cms_rate = 0;
    config.im.request_rate = 0;
    // Members only listen.
    config.im.idle_timeout = Duration::from_secs(600);
    let server = Server::start(config);
    let mut members: Vec<Seen> = Vec::new();
    let mut senders: Vec<Im> = Vec::new();
    for number in 0..MEMBERS {
        let own = (number < SENDERS).then_some(number);
        let mut im = match own {
            Some(number) => Im::user(&server, &format!("sender-{number}")),
            None => Im::guest(&server),
        };
        im.join("crowd");
        let socket = im.socket();
        socket.set_nonblocking(own.is_none()).expect("a socket");
        members.push(Seen { socket, buffer: Vec::new(), next: [0; SENDERS], count: 0, own });
        if own.is_some() {
            senders.push(im);
        }
    }
    let speaking = thread::spawn(move || {
        for number in 0..MESSAGES {
            senders.iter_mut().for_each(|sender| sender.say("crowd", &number.to_string()));
        }
        senders
    });
    let deadline = Instant::now() + Duration::from_secs(120);
    let wanted = |seen: &Seen| MESSAGES * (SENDERS - usize::from(seen.own.is_some()));
    let mut piece = vec![0; 256 * 1024];
    // Those who speak read only afterwards: their sockets are used by the other thread.
    let (speakers, listeners) = members.split_at_mut(SENDERS);
    while listeners.iter().any(|seen| seen.count < wanted(seen)) {
        assert!(Instant::now() < deadline, "messages are missing");
        listeners.iter_mut().for_each(|seen| seen.read(&mut piece).expect("it stays open"));
    }
    let _senders = speaking.join().expect("no panic");
    for seen in speakers {
        while seen.count < wanted(seen) {
            seen.read(&mut piece).expect("it stays open");
        }
    }
    // Nothing comes twice or late.
    thread::sleep(Duration::from_millis(200));
    for seen in &mut members {
        seen.socket.set_nonblocking(true).expect("a socket");
        seen.read(&mut piece).expect("it stays open");
        assert_eq!(seen.count, wanted(seen));
    }
}

/// Members that come and go while others speak miss nothing that comes after their response.
#[test]
fn joining_and_leaving_during_a_flood_loses_nothing_later() {
    let mut config = open_config();
    config.im.cms_rate = 0;
    config.im.request_rate = 0;
    config.im.batch_delay = Duration::from_millis(5);
    let server = Server::start(config);
    let mut speaker = Im::member(&server, "speaker", "room-7");
    let mut movers: Vec<Im> = (0..20).map(|_| Im::guest(&server)).collect();
    let mut number = 0;
    for round in 0..30 {
        for mover in &mut movers {
            mover.join("room-7");
            speaker.say("room-7", &number.to_string());
            number += 1;
        }
        // Everybody is in: this one reaches all.
        speaker.fence();
        speaker.say("room-7", &format!("all {round}"));
        for mover in &mut movers {
            let mut last = None;
            loop {
                let (_, content) = mover.messages_any("room-7").pop().expect("a message");
                if content == format!("all {round}") {
                    break;
                }
                last = Some(content);
            }
            assert!(round < 100, "{last:?}");
            mover.leave("room-7");
        }
        for mover in &mut movers {
            mover.forget();
        }
    }
}

/// A decoder of the gateway reads what the gateway writes, except for the flow.
#[test]
fn the_wire_of_a_crowd_is_well_formed() {
    let mut seen: HashMap<u8, usize> = HashMap::new();
    let server = Server::start(open_config());
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let mut speaker = Im::member(&server, "speaker", "room-7");
    (0..10).for_each(|n| speaker.say("room-7", &n.to_string()));
    let mut count = 0;
    while count < 10 {
        let frame = guest.next();
        *seen.entry(frame.header.command).or_default() += 1;
        count += frame.notify().messages.len();
        let mut header = frame.header;
        header.flag &= 0xf0;
        let bytes = [&header.bytes(ByteOrder::Big)[..], &frame.body].concat();
        let rules = ringway::protocols::im::wire::Rules {
            len: LenRule::Always(LenMode::Body),
            order: ByteOrder::Big,
            login: ringway::protocols::im::wire::LoginFields::default(),
            body_bytes_max: 1 << 20,
            plain_bytes_max: 1 << 20,
            versions: ringway::protocols::im::wire::Versions::CURRENT,
            only: None,
        };
        let mut decoder = Decoder::default();
        let mut input = &bytes[..];
        let decoded = decoder.next(&mut input, rules, &mut Gzip::new());
        assert_eq!(decoded.expect("passes").map(|frame| frame.header), Some(header));
    }
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [NOTIFY]);
}
