//! One room of IM members, over WebSocket: `room`.

use std::collections::HashMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringway::protocols::im::wire::proto::{ChatroomRequest, CrMessage, LoginRequest};
use ringway::protocols::im::wire::{ByteOrder, HEADER_BYTES, Header};
use ringway::wire::websocket::mask_frame;

use super::{Figure, Load};
use crate::Result;
use crate::options::Size;
use crate::rig::{Rig, STAMP, payload, stamp};

const LOGIN: u8 = 1;
const JOIN_CR: u8 = 5;
const CMS: u8 = 7;
const CR_NOTIFY: u8 = 8;
const ROOM: &str = "perf";
/// Members that enter before their answers are awaited.
const ENTER_BATCH: usize = 512;
/// Members that speak.
const SENDERS: usize = 100;
/// Longest time that a step takes.
const STEP: Duration = Duration::from_millis(20);

/// All clients are members of one room; some of them speak in turn, at fixed times, whether what
/// they said has arrived or not. Counted are deliveries of messages, not frames.
pub struct Room {
    members: Vec<u32>,
    senders: usize,
    payload: usize,
    /// Nanoseconds between two messages.
    interval: u64,
    due: u64,
    turn: usize,
    /// By time and sender: how many members do not have a message yet.
    missing: HashMap<(u64, usize), usize>,
    /// From the time at which a message was due to its last delivery, nanoseconds.
    last: Histogram<u64>,
    frames: u64,
    deliveries: u64,
}

impl Room {
    pub fn prepare(size: &Size, rig: &mut Rig) -> Result<Room> {
        let count = size.clients.unwrap_or(10_000);
        let members = rig.net.connect_clients(rig.server.client, count, |_| "/im".to_owned())?;
        let senders = SENDERS.min(count);
        for first in (0..count).step_by(ENTER_BATCH) {
            let last = (first + ENTER_BATCH).min(count);
            for (number, &member) in members.iter().enumerate().take(last).skip(first) {
                let user = (number < senders).then(|| format!("user-{number}"));
                rig.net.send(member, &enter(user))?;
            }
            // Two responses each.
            let mut missing = 2 * (last - first);
            rig.until(|rig, member| {
                rig.net.read(member, |_| missing = missing.saturating_sub(1))?;
                Ok(missing == 0)
            })?;
        }
        let interval = (1e9 / size.rate.unwrap_or(100.0)) as u64;
        Ok(Room {
            members,
            senders,
            payload: size.payload.unwrap_or(200).max(STAMP),
            interval,
            due: rig.tally.now(),
            turn: 0,
            missing: HashMap::new(),
            last: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            frames: 0,
            deliveries: 0,
        })
    }

    /// Sends what is due; gives the time until the next is.
    fn send_due(&mut self, rig: &mut Rig) -> Result<Duration> {
        while self.due <= rig.tally.now() {
            let sender = self.turn % self.senders;
            let message = CrMessage {
                message_content: payload(self.payload, self.due, sender).into(),
                to: ROOM.to_owned(),
                ..CrMessage::default()
            };
            self.missing.insert((self.due, sender), self.members.len() - 1);
            rig.net.send(self.members[sender], &in_message(&frame(CMS, &message)))?;
            self.turn += 1;
            self.due += self.interval;
        }
        Ok(Duration::from_nanos(self.due.saturating_sub(rig.tally.now())))
    }

    /// Counts the messages of a notification that came at `now`.
    fn count(&mut self, rig: &mut Rig, sent: u64, sender: usize, now: u64) {
        rig.tally.count(sent, now);
        self.deliveries += 1;
        if let Some(missing) = self.missing.get_mut(&(sent, sender)) {
            *missing -= 1;
            if *missing == 0 {
                self.missing.remove(&(sent, sender));
                self.last.saturating_record(now.saturating_sub(sent).max(1));
            }
        }
    }
}

impl Load for Room {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        let patience = self.send_due(rig)?.min(STEP);
        let mut stamps = Vec::new();
        for member in rig.net.wait(patience)? {
            stamps.clear();
            let mut frames = 0;
            rig.net.read(member, |frame| {
                if frame.get(8) == Some(&CR_NOTIFY) {
                    frames += 1;
                    stamps.extend(contents(&frame[HEADER_BYTES..]).filter_map(stamp));
                }
            })?;
            self.frames += frames;
            let now = rig.tally.now();
            for &(sent, sender) in &stamps {
                self.count(rig, sent, sender, now);
            }
        }
        if self.due.saturating_sub(self.oldest()) > 20_000_000_000 {
            return Err("a message did not reach all members within 20 s".into());
        }
        Ok(())
    }

    fn finish(&mut self, _rig: &mut Rig) -> Result<Vec<Figure>> {
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let per_frame = self.deliveries as f64 / self.frames.max(1) as f64;
        Ok(vec![
            Figure::new("last_member_p50_ms", ms(self.last.value_at_quantile(0.5))),
            Figure::new("last_member_p99_ms", ms(self.last.value_at_quantile(0.99))),
            Figure::new("messages_per_frame", per_frame),
        ])
    }
}

impl Room {
    /// When the oldest message was due that somebody misses.
    fn oldest(&self) -> u64 {
        self.missing.keys().map(|(sent, _)| *sent).min().unwrap_or(self.due)
    }
}

/// LOGIN and JOIN_CR in one message.
fn enter(user: Option<String>) -> Vec<u8> {
    let login = match user {
        Some(user_id) => frame(LOGIN, &LoginRequest { token: "token".to_owned(), user_id }),
        None => frame(LOGIN, &()),
    };
    let join = frame(JOIN_CR, &ChatroomRequest { chatroom_id: ROOM.to_owned() });
    in_message(&[login, join].concat())
}

fn frame(command: u8, message: &impl prost::Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let header = Header { len: body.len() as u32, seq: 1, command, flag: 0x10, status: 0 };
    [&header.bytes(ByteOrder::Big)[..], &body].concat()
}

/// As one binary message of a client.
fn in_message(frames: &[u8]) -> Vec<u8> {
    mask_frame(0x82, [0x5a, 0x17, 0xc3, 0x99], frames)
}

/// The contents of the messages in a `CRMessageResponse`: field 1 of field 1, which comes first.
fn contents(mut body: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (message, rest) = field_1(body)?;
        body = rest;
        Some(field_1(message)?.0)
    })
}

/// The length-delimited field 1 that stands in front, and what follows it.
fn field_1(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&key, mut rest) = bytes.split_first()?;
    if key != 0x0a {
        return None;
    }
    let (mut len, mut shift) = (0_usize, 0);
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return rest.split_at_checked(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use ringway::protocols::im::wire::proto::CrMessageResponse;

    use super::*;

    #[test]
    fn contents_are_found_without_a_decoder() {
        let message = |len: usize| CrMessage {
            message_content: vec![b'x'; len].into(),
            from: "user-1".to_owned(),
            to: ROOM.to_owned(),
            timestamp: 1,
            ..CrMessage::default()
        };
        let messages = vec![message(1), message(200), message(40_000)];
        let response = CrMessageResponse { messages, chatroom: ROOM.to_owned() };
        let body = prost::Message::encode_to_vec(&response);
        let lengths: Vec<usize> = contents(&body).map(<[u8]>::len).collect();
        assert_eq!(lengths, [1, 200, 40_000]);
    }
}
