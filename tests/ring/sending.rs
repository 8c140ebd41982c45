//! Batches reach the peer whole and in order, whether they fit or not.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use ringway::engine::ops::{Batch, Frame};
use ringway::engine::ring::Event;

use crate::support::*;

#[test]
fn echo() {
    let mut bench = Bench::new();
    let mut peers: Vec<TcpStream> = (0..50).map(|slot| bench.connect(slot)).collect();
    for round in 0..20u8 {
        for (slot, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&[b'a' + slot as u8 % 26, b'a' + round]).unwrap();
        }
        let mut got = 0;
        while got < 2 * peers.len() {
            let Event::Received { slot, data } = bench.event() else { panic!("not a receive") };
            bench.ring.data(&data).make_ascii_uppercase();
            let answer = bench.take(data);
            got += answer.len();
            bench.ring.send(slot, Batch::Own(answer));
        }
        bench.ring.submit().unwrap();
        for (slot, peer) in peers.iter_mut().enumerate() {
            let mut answer = [0; 2];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [b'A' + slot as u8 % 26, b'A' + round]);
        }
    }
    bench.idle();
}

/// More sends per turn than the submission queue has room for.
#[test]
fn ten_thousand_sends_of_one_shared_frame() {
    let mut bench = Bench::new();
    let mut peers: Vec<TcpStream> = (0..500).map(|slot| bench.connect(slot)).collect();
    let bytes = Bytes::from(pattern(1, 0..128));
    let frame = Frame::new(bytes.clone());
    for _ in 0..20 {
        for slot in 0..peers.len() as u32 {
            bench.ring.send(slot, Batch::One(frame.clone()));
        }
        bench.ring.submit().unwrap();
        for peer in &mut peers {
            let mut got = [0; 128];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(got[..], bytes[..]);
        }
    }
    bench.idle();
    drop(frame);
    assert!(bytes.is_unique(), "a batch is still held after its send");
}

#[test]
fn what_does_not_fit_follows_by_itself() {
    let mut bench = Bench::new();
    let bytes = pattern(2, 0..3 << 20);
    for sizes in [SMALL, Sizes { send: 64 << 10, receive: 0 }] {
        let peer = bench.connect_with(0, sizes);
        bench.ring.send(0, own(&bytes));
        let got = bench.stalled_then_sent(0, &peer, bytes.len());
        assert_same(&got, &bytes);
        bench.ring.send(0, own(b"after"));
        bench.ring.submit().unwrap();
        assert_eq!(reader(&peer, 5).join().unwrap(), b"after");
        bench.close(0);
    }
    bench.idle();
}

/// The socket's buffer is full: the first attempt writes nothing at all.
#[test]
fn a_send_into_a_full_buffer_stalls_at_zero() {
    let mut bench = Bench::new();
    let peer = bench.connect_with(0, SMALL);
    bench.ring.send(0, own(&pattern(3, 0..1 << 20)));
    let got = bench.stalled_then_sent(0, &peer, 1 << 20);
    assert_same(&got, &pattern(3, 0..1 << 20));

    // Fill it in sends that fit, until one does not.
    let mut sent = 0;
    let written = loop {
        bench.ring.send(0, own(&pattern(4, sent..sent + 1000)));
        match bench.now() {
            None => sent += 1000,
            Some(Event::Stalled { written, .. }) => break written,
            Some(other) => panic!("{other:?}"),
        }
    };
    assert!(written < 1000);
    let got = reader(&peer, sent + 1000);
    assert!(matches!(bench.event(), Event::Sent { slot: 0, result: Ok(()) }));
    assert_same(&got.join().unwrap(), &pattern(4, 0..sent + 1000));
}

#[test]
fn many_frames_go_out_in_one_gathering_send() {
    let mut bench = Bench::new();
    let mut peer = bench.connect(0);
    for count in [1, 2, 1024] {
        let frames = (0..count).map(|at| frame(5, at * 10..at * 10 + 10));
        bench.ring.send(0, Batch::Many(frames.collect()));
        bench.ring.submit().unwrap();
        let mut got = vec![0; count * 10];
        peer.read_exact(&mut got).unwrap();
        assert_same(&got, &pattern(5, 0..count * 10));
        bench.idle();
    }
}

/// Cut in the middle of a frame, in several pieces, with empty frames among them.
#[test]
fn many_frames_that_do_not_fit_follow_by_themselves() {
    let mut bench = Bench::new();
    for (slot, (count, len)) in [(40, 30_011), (1000, 1_031), (3, 1 << 20)].into_iter().enumerate()
    {
        let slot = slot as u32;
        let peer = bench.connect_with(slot, SMALL);
        let mut frames: Vec<Frame> =
            (0..count).map(|at| frame(6, at * len..(at + 1) * len)).collect();
        frames.insert(1, frame(6, 0..0));
        bench.ring.send(slot, Batch::Many(frames));
        let got = bench.stalled_then_sent(slot, &peer, count * len);
        assert_same(&got, &pattern(6, 0..count * len));
        assert!(bench.close(slot).is_empty());
    }
}

/// One operation carries 1024 parts, so this cannot be an inline send.
#[test]
fn more_frames_than_one_send_carries() {
    let mut bench = Bench::new();
    let peer = bench.connect(0);
    let frames = (0..5000).map(|at| frame(7, at * 3..at * 3 + 3));
    bench.ring.send(0, Batch::Many(frames.collect()));
    let got = bench.stalled_then_sent(0, &peer, 15_000);
    assert_same(&got, &pattern(7, 0..15_000));
}

#[test]
fn an_empty_batch_is_nothing() {
    let mut bench = Bench::new();
    let peer = bench.connect(0);
    bench.ring.send(0, own(b""));
    bench.ring.send(0, Batch::Many(vec![frame(0, 0..0)]));
    bench.idle();
    drop(peer);
    assert!(matches!(bench.event(), Event::Ended { slot: 0, error: None }));
}

/// The second send of a turn must not overtake the rest of the first.
#[test]
fn two_sends_in_one_turn_keep_their_order() {
    let mut bench = Bench::new();
    let peer = bench.connect_with(0, SMALL);
    bench.ring.send(0, own(&pattern(8, 0..400_000)));
    bench.ring.send(0, own(&pattern(8, 400_000..400_010)));
    bench.ring.send(0, Batch::One(frame(8, 400_010..900_000)));
    let got = bench.stalled_then_sent(0, &peer, 900_000);
    assert_same(&got, &pattern(8, 0..900_000));
    bench.idle();
}

/// The kernel gives a request that polls too often to a worker thread; pieces keep it from that.
#[test]
fn a_slow_reader_costs_no_kernel_thread() {
    let mut bench = Bench::new();
    let sizes = Sizes { send: 1, receive: 1 };
    let mut peer = bench.connect_with(0, sizes);
    peer.set_nonblocking(true).unwrap();
    let bytes = pattern(9, 0..1 << 20);
    bench.ring.send(0, own(&bytes));
    let mut got = Vec::new();
    let mut piece = [0; 700];
    let mut sent = false;
    while got.len() < bytes.len() {
        match peer.read(&mut piece) {
            Ok(count) => got.extend_from_slice(&piece[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        match bench.now() {
            None => {}
            Some(Event::Stalled { .. }) => {
                assert!(kernel_workers().is_empty());
            }
            Some(Event::Sent { result: Ok(()), .. }) => sent = true,
            Some(other) => panic!("{other:?}"),
        }
    }
    assert!(sent || matches!(bench.event(), Event::Sent { result: Ok(()), .. }));
    assert_same(&got, &bytes);
    assert_eq!(kernel_workers(), Vec::<String>::new());
}

fn kernel_workers() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("iou-wrk")).collect()
}

/// `Stalled` has to come before input that arrived after the send, because the shard takes a send
/// for done when it sees the next input.
#[test]
fn a_stall_is_reported_before_later_input() {
    let mut bench = Bench::new();
    for slot in 0..50 {
        let mut peer = bench.connect_with(slot, SMALL);
        bench.ring.submit().unwrap();
        peer.write_all(b"input").unwrap();
        bench.ring.send(slot, big());
        assert!(matches!(bench.event(), Event::Stalled { slot: s, .. } if s == slot));
        assert_eq!(bench.receive(slot, 5), b"input");
        assert!(bench.close(slot).is_empty());
    }
}

#[test]
fn a_fin_follows_everything_that_was_sent() {
    let mut bench = Bench::new();
    for (slot, count) in [(0, 10), (1, 1 << 20)] {
        let mut peer = bench.connect_with(slot, SMALL);
        let bytes = pattern(slot.into(), 0..count);
        bench.ring.send(slot, own(&bytes));
        bench.ring.shutdown(slot);
        bench.ring.submit().unwrap();
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).unwrap();
            (got, peer)
        });
        if count > 10 {
            assert!(matches!(bench.event(), Event::Stalled { .. }));
            assert!(matches!(bench.event(), Event::Sent { result: Ok(()), .. }));
        }
        let (got, mut peer) = reader.join().unwrap();
        assert_same(&got, &bytes);
        // Only one direction is over.
        peer.write_all(b"still here").unwrap();
        assert_eq!(bench.receive(slot, 10), b"still here");
        drop(peer);
        assert!(matches!(bench.event(), Event::Ended { error: None, .. }));
    }
}

#[test]
fn a_fin_without_a_send_goes_out_at_once() {
    let mut bench = Bench::new();
    let mut peer = bench.connect(0);
    bench.ring.shutdown(0);
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    drop(peer);
    assert!(matches!(bench.event(), Event::Ended { slot: 0, error: None }));
}

fn frame(seed: u64, range: std::ops::Range<usize>) -> Frame {
    Frame::new(Bytes::from(pattern(seed, range)))
}
