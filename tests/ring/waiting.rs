//! A wait in the ring ends when there is something to do, and not before.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::support::*;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(2);

fn waker(bench: &mut Bench) -> OwnedFd {
    let waker = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    bench.ring.wake_by(waker.as_fd().try_clone_to_owned().unwrap());
    bench.idle();
    waker
}

#[test]
fn a_wait_ends_with_what_arrives() {
    let mut bench = Bench::new();
    let _waker = waker(&mut bench);
    let mut peer = bench.connect(0);
    bench.idle();
    let (go, gone) = mpsc::channel::<u8>();
    let writer = std::thread::spawn(move || {
        gone.iter().for_each(|byte| peer.write_all(&[byte]).unwrap());
    });
    for round in 0..200 {
        go.send(round).unwrap();
        assert!(bench.ring.wait(LONG).unwrap(), "nothing came");
        assert_eq!(bench.receive(0, 1), [round]);
        bench.idle();
    }
    drop(go);
    writer.join().unwrap();
}

/// Nobody reads the eventfd, so it stays readable; only a further write counts.
#[test]
fn a_wait_ends_with_each_write_to_the_eventfd() {
    let mut bench = Bench::new();
    let waker = waker(&mut bench);
    let (go, gone) = mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        gone.iter().for_each(|()| assert!(rustix::io::write(&waker, &1u64.to_ne_bytes()).is_ok()));
    });
    for _ in 0..200 {
        go.send(()).unwrap();
        assert!(bench.ring.wait(LONG).unwrap(), "the write was not seen");
        bench.idle();
        assert!(!bench.ring.wait(SHORT).unwrap(), "a wait ended without a reason");
    }
    drop(go);
    writer.join().unwrap();
}

#[test]
fn a_wait_sees_what_came_before_it() {
    let mut bench = Bench::new();
    let waker = waker(&mut bench);
    rustix::io::write(&waker, &1u64.to_ne_bytes()).unwrap();
    assert!(bench.ring.wait(LONG).unwrap());
    bench.idle();
    let mut peer = bench.connect(0);
    bench.idle();
    peer.write_all(b"x").unwrap();
    assert!(bench.ring.wait(LONG).unwrap());
    assert_eq!(bench.receive(0, 1), b"x");
}
