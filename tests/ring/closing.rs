//! Endings: by the peer at any moment, by us with anything in flight.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringway::engine::ring::{Event, Settings};

use crate::support::*;

/// The states that a connection can be closed in.
const STATES: [&str; 10] = [
    "fresh",
    "idle",
    "paused",
    "pausing",
    "data",
    "stalled",
    "stalled and data",
    "ended",
    "sent now",
    "ended and sent now",
];

/// Puts the connection in slot 0 into a state.
fn prepare(bench: &mut Bench, peer: &mut TcpStream, state: &str) {
    if state == "fresh" {
        return;
    }
    bench.ring.submit().unwrap();
    match state {
        "paused" | "pausing" => bench.ring.pause(0),
        "data" => peer.write_all(b"old data").unwrap(),
        "stalled" | "stalled and data" => {
            bench.ring.send(0, big());
            assert!(matches!(bench.event(), Event::Stalled { .. }));
        }
        "ended" | "ended and sent now" => {
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(matches!(bench.event(), Event::Ended { .. }));
        }
        "sent now" => bench.ring.send(0, big()),
        _ => {}
    }
    match state {
        "paused" => bench.idle(),
        "stalled and data" => {
            peer.write_all(b"old data").unwrap();
            // Received but not yet reported when the close comes.
            bench.ring.submit().unwrap();
        }
        // Nothing is in flight, so the slot is free before the send was attempted.
        "ended and sent now" => bench.ring.send(0, big()),
        _ => {}
    }
}

#[test]
fn close_reports_closed_once_and_the_slot_starts_clean() {
    // Few buffers: if a close lost one, soon nothing would be received.
    let mut bench = Bench::with(Settings { buffers: 4, ..settings() });
    for round in 0..20 {
        for state in STATES {
            let mut old = bench.connect_with(0, SMALL);
            prepare(&mut bench, &mut old, state);
            assert!(bench.close(0).is_empty());
            // The old peer goes on talking, to nobody.
            let _ = old.write_all(b"late");
            let mut new = bench.connect_with(0, SMALL);
            new.write_all(&[round]).unwrap();
            bench.ring.send(0, own(b"welcome"));
            assert_eq!(bench.receive(0, 1), [round], "after {state}");
            let mut got = [0; 7];
            new.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"welcome", "after {state}");
            assert!(bench.close(0).is_empty());
            bench.idle();
            assert_over(old);
        }
    }
}

/// The peer of a closed connection sees the end, after what fitted into the socket.
fn assert_over(mut peer: TcpStream) {
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut got = Vec::new();
    match peer.read_to_end(&mut got) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn many_closes_in_one_turn() {
    let mut bench = Bench::new();
    let mut peers: Vec<TcpStream> = (0..600).map(|slot| bench.connect_with(slot, SMALL)).collect();
    bench.idle();
    for slot in (0..600).step_by(3) {
        bench.ring.send(slot, big());
    }
    bench.ring.submit().unwrap();
    peers.iter_mut().for_each(|peer| peer.write_all(b"data").unwrap());
    (0..600).for_each(|slot| bench.ring.close(slot));
    let mut closed: Vec<u32> = (0..600)
        .map(|_| match bench.event() {
            Event::Closed { slot } => slot,
            other => panic!("{other:?}"),
        })
        .collect();
    closed.sort_unstable();
    assert_eq!(closed, (0..600).collect::<Vec<_>>());
    bench.idle();
}

/// What was sent in the turn of the close still goes out.
#[test]
fn the_last_words_are_heard() {
    let mut bench = Bench::new();
    let mut peer = bench.connect(0);
    bench.idle();
    bench.ring.send(0, own(b"goodbye"));
    bench.ring.shutdown(0);
    assert!(bench.close(0).is_empty());
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"goodbye");
}

#[test]
fn a_slot_that_is_not_open_takes_nothing() {
    let mut bench = Bench::new();
    for slot in [0, 5] {
        bench.ring.send(slot, own(b"x"));
        bench.ring.pause(slot);
        bench.ring.resume(slot);
        bench.ring.shutdown(slot);
        bench.ring.close(slot);
    }
    let peer = bench.connect(0);
    bench.ring.close(0);
    bench.ring.close(0);
    bench.ring.send(0, own(b"x"));
    bench.ring.resume(0);
    assert!(matches!(bench.event(), Event::Closed { slot: 0 }));
    bench.idle();
    drop(peer);
}

#[test]
fn the_end_of_stream_comes_after_all_data() {
    let mut bench = Bench::new();
    let mut peer = bench.connect(0);
    let bytes = pattern(1, 0..100_000);
    peer.write_all(&bytes).unwrap();
    drop(peer);
    assert_same(&bench.receive(0, bytes.len()), &bytes);
    assert!(matches!(bench.event(), Event::Ended { slot: 0, error: None }));
    bench.ring.resume(0);
    bench.idle();
    assert!(bench.close(0).is_empty());
}

/// Handles events until the connection has ended and counts.
fn until_ended(bench: &mut Bench) -> (Tally, Option<std::io::Error>) {
    let mut tally = Tally::default();
    loop {
        let event = bench.event();
        tally.count(&event);
        match event {
            Event::Ended { error, .. } => return (tally, error),
            Event::Received { data, .. } => bench.ring.give_back(data),
            _ => {}
        }
    }
}

#[test]
fn a_reset_before_adopt_is_an_end() {
    let mut bench = Bench::new();
    let (socket, peer) = pair(Sizes::default());
    reset(peer);
    bench.ring.adopt(0, socket);
    let (_, error) = until_ended(&mut bench);
    assert_eq!(error.unwrap().kind(), ErrorKind::ConnectionReset);
    assert!(bench.close(0).is_empty());
}

#[test]
fn a_reset_while_idle_is_an_end() {
    let mut bench = Bench::new();
    let peer = bench.connect(0);
    bench.idle();
    reset(peer);
    let (_, error) = until_ended(&mut bench);
    assert_eq!(error.unwrap().kind(), ErrorKind::ConnectionReset);
    bench.idle();
    assert!(bench.close(0).is_empty());
}

#[test]
fn a_reset_during_a_stalled_send_fails_it_and_is_an_end() {
    let mut bench = Bench::new();
    let mut peer = bench.connect_with(0, SMALL);
    bench.ring.send(0, own(&pattern(1, 0..4 << 20)));
    assert!(matches!(bench.event(), Event::Stalled { .. }));
    // Some of it goes through first.
    let peer = std::thread::spawn(move || {
        peer.read_exact(&mut vec![0; 200_000]).unwrap();
        reset(peer);
    });
    let mut tally = Tally::default();
    let mut written = 0;
    while tally.of(0, "ended") == 0 || tally.of(0, "sent") == 0 {
        let event = bench.event();
        tally.count(&event);
        if let Event::Sent { result, .. } = event {
            let (count, error) = result.unwrap_err();
            written = count;
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
    }
    assert!((200_000..4 << 20).contains(&written), "{written}");
    peer.join().unwrap();
    bench.idle();
    assert!(bench.close(0).is_empty());
}

#[test]
fn a_reset_after_shutdown_is_an_end() {
    let mut bench = Bench::new();
    let peer = bench.connect(0);
    bench.ring.send(0, own(b"bye"));
    bench.ring.shutdown(0);
    bench.idle();
    reset(peer);
    let (tally, _) = until_ended(&mut bench);
    assert_eq!(tally.of(0, "received"), 0);
    bench.idle();
    assert!(bench.close(0).is_empty());
}

/// The inline send finds the connection broken: Stalled, then Sent with the error and one end, in
/// either order. What the peer said before is not lost.
#[test]
fn a_send_to_a_broken_connection_fails_and_keeps_what_came_before() {
    let mut bench = Bench::new();
    for paused in [false, true] {
        let mut peer = bench.connect(0);
        bench.idle();
        if paused {
            bench.ring.pause(0);
            bench.idle();
        }
        peer.write_all(b"last words").unwrap();
        reset(peer);
        bench.ring.send(0, own(b"x"));
        assert!(matches!(bench.event(), Event::Stalled { slot: 0, written: 0 }));
        let (mut words, mut failures, mut ends) = (Vec::new(), 0, 0);
        while failures == 0 || ends == 0 {
            match bench.event() {
                Event::Received { data, .. } => words.extend(bench.take(data)),
                Event::Sent { slot: 0, result: Err((0, _)) } => {
                    failures += 1;
                    if paused {
                        bench.idle();
                        bench.ring.resume(0);
                    }
                }
                Event::Ended { .. } => ends += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((failures, ends), (1, 1));
        assert_eq!(words, b"last words");
        bench.idle();
        assert!(bench.close(0).is_empty());
    }
}

/// Also if the connection itself is well.
#[test]
fn a_failed_send_ends_the_connection() {
    let mut bench = Bench::new();
    let mut peer = bench.connect(0);
    bench.ring.shutdown(0);
    bench.ring.send(0, own(b"x"));
    let mut tally = Tally::default();
    while tally.of(0, "ended") == 0 || tally.of(0, "sent") == 0 {
        tally.count(&bench.event());
    }
    assert_eq!(tally.of(0, "stalled"), 1);
    bench.idle();
    assert!(bench.close(0).is_empty());
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

/// The kernel ends so many operations in several steps; the last one must be seen as well.
#[test]
fn a_ring_with_many_idle_connections_is_dropped_quickly() {
    for count in [1, 100, 250, 400, 500] {
        let mut bench = Bench::new();
        let peers: Vec<TcpStream> = (0..count).map(|slot| bench.connect(slot)).collect();
        bench.idle();
        drop_quickly(bench);
        peers.into_iter().for_each(assert_over);
    }
}

/// Drops a ring, which must not have to give its memory up.
fn drop_quickly(bench: Bench) {
    let start = Instant::now();
    drop(bench);
    assert!(start.elapsed() < Duration::from_millis(900), "the kernel did not answer");
}

/// Everything at once, given up at any moment: the memory stays sound (sanitizers look on), the
/// peers see the end, and the kernel answers at once.
#[test]
fn a_ring_can_be_dropped_with_everything_in_flight() {
    for (submitted, submission_entries) in [(true, 16), (false, 16), (true, 1024), (false, 1024)] {
        let mut bench = Bench::with(Settings { submission_entries, ..settings() });
        let listener = listener(0);
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        bench.ring.listen(0, listener.into());
        let mut peers: Vec<TcpStream> =
            (0..500).map(|slot| bench.connect_with(slot, SMALL)).collect();
        bench.idle();
        for slot in 0..30 {
            bench.ring.send(slot, big());
        }
        bench.ring.submit().unwrap();
        peers.iter_mut().for_each(|peer| peer.write_all(b"data").unwrap());
        let held: Vec<Event> = (0..60).map(|_| bench.event()).collect();
        // Accepted, never reported.
        peers.extend((0..5).map(|_| TcpStream::connect(address).unwrap()));
        (30..60).for_each(|slot| bench.ring.send(slot, big()));
        (40..70).for_each(|slot| bench.ring.pause(slot));
        (50..80).for_each(|slot| bench.ring.close(slot));
        if submitted {
            bench.ring.submit().unwrap();
        }
        drop_quickly(bench);
        drop(held);
        peers.into_iter().for_each(assert_over);
        assert!(TcpStream::connect(address).is_err(), "still listening");
    }
}
