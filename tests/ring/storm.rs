//! Everything at random, from a seed: whatever happens to a connection, its bytes arrive in order,
//! nothing is reported after a close, and each close is answered once.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use ringway::engine::ops::{Batch, Frame};
use ringway::engine::ring::{Event, Received, Settings};

use crate::support::*;

const SLOTS: u32 = 24;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }
}

/// A connection as both sides should see it.
struct Story {
    peer: Option<TcpStream>,
    seed: u64,
    /// Bytes given to `send`, and bytes that the peer has read.
    sent: usize,
    read: usize,
    /// Bytes that the peer has written, and bytes received.
    written: usize,
    received: usize,
    stalled: bool,
    ended: bool,
    broken: bool,
    finished: bool,
}

struct Storm {
    bench: Bench,
    random: Random,
    stories: HashMap<u32, Story>,
    closing: Vec<u32>,
    held: Vec<(u32, u64, Received)>,
    count: u64,
    closed: u64,
}

impl Storm {
    fn open(&mut self, slot: u32) {
        if self.stories.contains_key(&slot) || self.closing.contains(&slot) {
            return;
        }
        self.count += 1;
        let peer = self.bench.connect_with(slot, SMALL);
        peer.set_nonblocking(true).unwrap();
        self.stories.insert(
            slot,
            Story {
                peer: Some(peer),
                seed: self.count,
                sent: 0,
                read: 0,
                written: 0,
                received: 0,
                stalled: false,
                ended: false,
                broken: false,
                finished: false,
            },
        );
    }

    fn send(&mut self, slot: u32) {
        let len = [10, 1000, 100_000][self.random.below(3) as usize];
        let Some(story) = self.stories.get_mut(&slot) else { return };
        if story.stalled || story.broken || story.finished {
            return;
        }
        let bytes = pattern(story.seed, story.sent..story.sent + len);
        story.sent += len;
        let batch = match self.random.below(3) {
            0 => Batch::Own(bytes),
            1 => Batch::One(Frame::new(bytes.into())),
            _ => {
                let frame = |part: &[u8]| Frame::new(bytes::Bytes::copy_from_slice(part));
                Batch::Many(bytes.chunks(777).map(frame).collect())
            }
        };
        self.bench.ring.send(slot, batch);
    }

    /// The peer reads, writes, or goes.
    fn peer(&mut self, slot: u32) {
        let what = self.random.below(20);
        let Some(story) = self.stories.get_mut(&slot) else { return };
        let Some(peer) = &mut story.peer else { return };
        match what {
            0 => reset(story.peer.take().unwrap()),
            1 => story.peer = None,
            2 => drop(peer.shutdown(Shutdown::Write)),
            3..8 => {
                let bytes = pattern(story.seed + 1000, story.written..story.written + 900);
                story.written += peer.write(&bytes).unwrap_or(0);
            }
            _ => {
                let mut bytes = vec![0; 40_000];
                match peer.read(&mut bytes) {
                    Ok(count) => {
                        let wanted = pattern(story.seed, story.read..story.read + count);
                        assert_same(&bytes[..count], &wanted);
                        story.read += count;
                        assert!(story.read <= story.sent);
                    }
                    Err(error) => {
                        assert!(matches!(
                            error.kind(),
                            ErrorKind::WouldBlock | ErrorKind::ConnectionReset
                        ));
                    }
                }
            }
        }
    }

    fn close(&mut self, slot: u32) {
        if self.stories.remove(&slot).is_some() {
            self.bench.ring.close(slot);
            self.closing.push(slot);
        }
    }

    fn step(&mut self) {
        let slot = self.random.below(SLOTS.into()) as u32;
        match self.random.below(40) {
            0..6 => self.open(slot),
            6..16 => self.send(slot),
            16..30 => self.peer(slot),
            30 => self.close(slot),
            31 => self.bench.ring.pause(slot),
            32..34 => self.bench.ring.resume(slot),
            34 => {
                self.bench.ring.shutdown(slot);
                self.stories.get_mut(&slot).into_iter().for_each(|story| story.finished = true);
            }
            35 => {
                for (.., data) in self.held.drain(..) {
                    self.bench.ring.give_back(data);
                }
            }
            _ => {
                if let Some(event) = self.bench.now() {
                    self.event(event);
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        let slot = slot_of(&event).unwrap();
        if let Event::Closed { .. } = event {
            let at = self.closing.iter().position(|closing| *closing == slot);
            self.closing.swap_remove(at.expect("closed, but nobody asked"));
            self.closed += 1;
            return;
        }
        let story = self.stories.get_mut(&slot).expect("an event after close");
        match event {
            Event::Received { data, .. } => {
                assert!(!story.ended);
                let (from, to) = (story.received, story.received + data.len());
                assert_same(self.bench.ring.data(&data), &pattern(story.seed + 1000, from..to));
                story.received = to;
                // Kept for a while, to run out of buffers.
                self.held.push((slot, story.seed, data));
            }
            Event::Stalled { .. } => {
                assert!(!story.stalled);
                story.stalled = true;
            }
            Event::Sent { result, .. } => {
                assert!(story.stalled);
                story.stalled = false;
                story.broken = result.is_err();
            }
            Event::Ended { error, .. } => {
                assert!(!story.ended);
                story.ended = true;
                if error.is_none() && !story.broken {
                    assert_eq!(story.received, story.written, "the end comes after all data");
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn finish(mut self) {
        (0..SLOTS).for_each(|slot| self.close(slot));
        while !self.closing.is_empty() {
            let event = self.bench.event();
            self.event(event);
        }
        assert_eq!(self.closed, self.count);
        self.bench.idle();
    }
}

#[test]
fn whatever_happens_bytes_keep_their_order_and_closes_are_answered() {
    for seed in 0..40 {
        println!("seed {seed}");
        let settings = Settings {
            submission_entries: [4, 64][seed as usize % 2],
            completion_entries: [4, 16, 256][seed as usize % 3],
            buffers: [4, 64][seed as usize / 2 % 2],
            buffer_bytes: 256,
        };
        let settings = Settings {
            completion_entries: settings.completion_entries.max(settings.submission_entries),
            ..settings
        };
        let mut storm = Storm {
            bench: Bench::with(settings),
            random: Random(seed),
            stories: HashMap::new(),
            closing: Vec::new(),
            held: Vec::new(),
            count: 0,
            closed: 0,
        };
        (0..1500).for_each(|_| storm.step());
        storm.finish();
    }
}
