//! Every byte arrives once and in order, whatever stops the receives.

use std::io::Write;
use std::net::TcpStream;

use ringway::engine::ring::{Event, Received, Settings};
use ringway::spare::Look;

use crate::support::*;

#[test]
fn what_was_sent_before_adopt_arrives() {
    let mut bench = Bench::new();
    let (socket, mut peer) = pair(Sizes::default());
    peer.write_all(b"early").unwrap();
    bench.ring.adopt(0, socket);
    assert_eq!(bench.receive(0, 5), b"early");
}

#[test]
fn pause_and_resume_keep_every_byte() {
    let mut bench = Bench::new();
    let mut peer = bench.connect(0);
    let bytes = pattern(1, 0..2 << 20);
    let writer = {
        let mut peer = peer.try_clone().unwrap();
        let bytes = bytes.clone();
        std::thread::spawn(move || peer.write_all(&bytes).unwrap())
    };
    let mut got = Vec::new();
    let mut step = 0u32;
    while got.len() < bytes.len() {
        let Event::Received { slot: 0, data } = bench.event() else { panic!("not a receive") };
        got.extend(bench.take(data));
        step += 1;
        match step % 5 {
            0 => bench.ring.pause(0),
            // Before the kernel has seen the pause.
            1 => {
                bench.ring.pause(0);
                bench.ring.resume(0);
            }
            // After the kernel has carried it out, with what was on its way.
            2 => {
                bench.ring.pause(0);
                while let Some(event) = bench.now() {
                    let Event::Received { data, .. } = event else { panic!("{event:?}") };
                    got.extend(bench.take(data));
                }
            }
            3 => {
                bench.ring.pause(0);
                bench.ring.submit().unwrap();
            }
            _ => {}
        }
        bench.ring.resume(0);
    }
    writer.join().unwrap();
    assert_same(&got, &bytes);
    peer.write_all(b"more").unwrap();
    assert_eq!(bench.receive(0, 4), b"more");
}

#[test]
fn a_paused_connection_holds_its_peer_back() {
    let mut bench = Bench::new();
    let mut peer = bench.connect(0);
    bench.ring.pause(0);
    bench.idle();
    let bytes = pattern(2, 0..64 << 20);
    let written = write_until_full(&mut peer, &bytes);
    assert!(written < bytes.len(), "nothing held the peer back");
    bench.idle();
    bench.ring.resume(0);
    assert_same(&bench.receive(0, written), &bytes[..written]);
}

/// 16 buffers for 200 connections that all have more to say than fits into all buffers.
#[test]
fn exhausted_buffers_lose_nothing_and_starve_nobody() {
    const EACH: usize = 24 << 10;
    let settings = Settings { buffers: 16, buffer_bytes: 512, ..settings() };
    let mut bench = Bench::with(settings);
    let mut peers: Vec<TcpStream> = (0..200).map(|slot| bench.connect(slot)).collect();
    for (slot, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&pattern(slot as u64, 0..EACH)).unwrap();
    }
    let mut got = vec![Vec::new(); peers.len()];
    let mut held: Vec<(u32, Received)> = Vec::new();
    let mut most = 0;
    while got.iter().any(|bytes| bytes.len() < EACH) {
        match bench.now() {
            Some(Event::Received { slot, data }) => held.push((slot, data)),
            Some(other) => panic!("{other:?}"),
            // The kernel has no buffer left or nothing to put into one.
            None if held.is_empty() => assert!(bench.ring.pending(), "stuck"),
            None => {
                most = most.max(held.len());
                for (slot, data) in held.drain(..) {
                    let bytes = bench.ring.data(&data).to_vec();
                    bench.ring.give_back(data);
                    got[slot as usize].extend(bytes);
                }
            }
        }
    }
    assert_eq!(most, 16, "the buffers were never exhausted");
    for (slot, bytes) in got.iter().enumerate() {
        assert_same(bytes, &pattern(slot as u64, 0..EACH));
    }
    // And they go on receiving.
    for (slot, peer) in peers.iter_mut().enumerate() {
        peer.write_all(b"more").unwrap();
        assert_eq!(bench.receive(slot as u32, 4), b"more");
    }
}

/// No buffer is left and none comes back: nothing may spin.
#[test]
fn without_buffers_the_ring_is_at_rest() {
    let settings = Settings { buffers: 1, buffer_bytes: 64, ..settings() };
    let mut bench = Bench::with(settings);
    let mut peers = [bench.connect(0), bench.connect(1)];
    bench.idle();
    peers.iter_mut().for_each(|peer| peer.write_all(&[7; 64]).unwrap());
    let Event::Received { slot: first, data } = bench.event() else { panic!("not a receive") };
    bench.idle();
    for _ in 0..3 {
        bench.ring.submit().unwrap();
        assert!(!bench.ring.pending());
    }
    bench.ring.give_back(data);
    assert!(bench.ring.pending(), "the kernel has to hear of the buffer");
    let Event::Received { slot: second, data } = bench.event() else { panic!("not a receive") };
    assert_ne!(first, second);
    bench.ring.give_back(data);
}

#[test]
fn a_starved_connection_can_be_paused_resumed_and_closed() {
    let settings = Settings { buffers: 1, buffer_bytes: 64, ..settings() };
    let mut bench = Bench::with(settings);
    let mut peers: Vec<TcpStream> = (0..4).map(|slot| bench.connect(slot)).collect();
    bench.idle();
    peers.iter_mut().for_each(|peer| peer.write_all(&[7; 64]).unwrap());
    let Event::Received { slot: holder, data } = bench.event() else { panic!("not a receive") };
    bench.idle();
    assert_eq!(bench.ring.buffers_exhausted(), 3, "one has the only buffer");
    let mut starved: Vec<u32> = (0..4).filter(|slot| *slot != holder).collect();
    bench.ring.pause(starved[0]);
    bench.ring.pause(starved[1]);
    bench.ring.resume(starved[1]);
    assert!(bench.close(starved[2]).is_empty());
    bench.ring.give_back(data);
    assert_eq!(bench.receive(starved[1], 64), [7; 64]);
    bench.idle();
    bench.ring.resume(starved[0]);
    assert_eq!(bench.receive(starved[0], 64), [7; 64]);
    // The slot that was closed while it waited for a buffer.
    let mut peer = bench.connect(starved.remove(2));
    peer.write_all(b"new").unwrap();
    let slots = bench.event();
    assert!(matches!(slots, Event::Received { ref data, .. } if data.len() == 3), "{slots:?}");
}

/// Every buffer is as good as the first: the ring wraps many times.
#[test]
fn buffers_go_round() {
    let settings = Settings { buffers: 2, buffer_bytes: 64, ..settings() };
    let mut bench = Bench::with(settings);
    let mut peer = bench.connect(0);
    let bytes = pattern(3, 0..300_000);
    for piece in bytes.chunks(1000) {
        peer.write_all(piece).unwrap();
        assert_same(&bench.receive(0, piece.len()), piece);
    }
}

/// As many as a shard has by default.
fn many_buffers() -> Bench {
    Bench::with(Settings { buffers: 2048, buffer_bytes: 4096, ..settings() })
}

#[test]
fn one_message_after_the_other_touches_few_buffers() {
    let mut bench = many_buffers();
    let mut peer = bench.connect(0);
    for round in 0..5000_u64 {
        let bytes = pattern(round, 0..10);
        peer.write_all(&bytes).unwrap();
        assert_same(&bench.receive(0, 10), &bytes);
    }
    let touched = bench.ring.buffer_bytes() / 4096;
    assert!((1..=80).contains(&touched), "{touched} buffers");
}

/// More connections than the kernel has buffers at a time say something at once, twice; what that
/// has touched is given back, and nothing is lost.
#[test]
fn what_a_burst_has_touched_is_given_back() {
    const PEERS: u32 = 400;
    let mut bench = many_buffers();
    let mut peers: Vec<TcpStream> = (0..PEERS).map(|slot| bench.connect(slot)).collect();
    bench.idle();
    for round in 0..2 {
        for (slot, peer) in (0_u64..).zip(&mut peers) {
            peer.write_all(&pattern(slot + round, 0..100)).unwrap();
        }
        let mut held = Vec::new();
        while held.len() < peers.len() {
            match bench.event() {
                Event::Received { slot, data } => held.push((slot, data)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(bench.ring.buffers_exhausted(), 0, "there are enough");
        assert!(bench.ring.buffer_bytes() >= u64::from(PEERS) * 4096);
        for (slot, data) in held {
            // Nothing that is being looked at is given back.
            bench.ring.shrink(&mut Look::default());
            assert_same(&bench.take(data), &pattern(u64::from(slot) + round, 0..100));
        }
        bench.idle();
        (0..20).for_each(|_| bench.ring.shrink(&mut Look::default()));
        let touched = bench.ring.buffer_bytes() / 4096;
        assert!(touched <= 64, "{touched} buffers");
    }
}

/// A completion queue of two: nearly everything overflows, and every multishot ends.
#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    const EACH: usize = 3000;
    let settings = Settings { submission_entries: 2, completion_entries: 2, ..settings() };
    let mut bench = Bench::with(Settings { buffer_bytes: 64, ..settings });
    let mut peers: Vec<TcpStream> = (0..64).map(|slot| bench.connect_with(slot, SMALL)).collect();
    bench.idle();
    for (slot, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&pattern(slot as u64, 0..EACH)).unwrap();
    }
    // Sends that fail fill the queue as well.
    for slot in 0..64 {
        bench.ring.send(slot, own(&pattern(slot.into(), 0..300_000)));
    }
    bench.ring.submit().unwrap();
    let mut got = vec![Vec::new(); 64];
    let mut tally = Tally::default();
    let readers: Vec<_> = peers.iter().map(|peer| reader(peer, 300_000)).collect();
    let done = |got: &[Vec<u8>], tally: &Tally| {
        (0..64).all(|slot| got[slot as usize].len() == EACH && tally.of(slot, "sent") == 1)
    };
    while !done(&got, &tally) {
        let event = bench.event();
        tally.count(&event);
        match event {
            Event::Received { slot, data } => {
                assert_eq!(tally.of(slot, "stalled"), 1, "the stall comes first");
                let bytes = bench.take(data);
                got[slot as usize].extend(bytes);
            }
            Event::Stalled { .. } | Event::Sent { result: Ok(()), .. } => {}
            other => panic!("{other:?}"),
        }
    }
    for (slot, reader) in readers.into_iter().enumerate() {
        assert_same(&got[slot], &pattern(slot as u64, 0..EACH));
        assert_same(&reader.join().unwrap(), &pattern(slot as u64, 0..300_000));
    }
    bench.idle();
}

#[test]
#[should_panic(expected = "a receive of another ring")]
fn a_receive_belongs_to_its_ring() {
    let (mut one, mut other) = (Bench::new(), Bench::new());
    let mut peer = one.connect(0);
    peer.write_all(b"x").unwrap();
    let Event::Received { data, .. } = one.event() else { panic!("not a receive") };
    other.ring.data(&data);
}
