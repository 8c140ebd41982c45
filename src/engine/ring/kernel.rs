//! What the ring takes for granted about the kernel, shown on the running one. Everything here goes
//! through the queues alone; a failure means that the documentation of [`super`] is wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::{cqueue, opcode, types};
use socket2::{Domain, SockRef, Socket, Type};

use super::queue::{Completion, Queue};
use super::setup::{Settings, build};
use super::sockets::{Stalled, inline_entry};
use crate::engine::buffers::{Buffers, GROUP};
use crate::engine::ops::{Batch, Frame};

fn queue(submission_entries: u32, completion_entries: u32) -> Queue {
    let settings =
        Settings { submission_entries, completion_entries, buffers: 8, buffer_bytes: 64 };
    Queue::new(build(&settings).unwrap())
}

/// Two ends of a connection that holds little.
fn pair() -> (TcpStream, TcpStream) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.set_send_buffer_size(16 << 10).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(1).unwrap();
    let peer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    peer.set_recv_buffer_size(16 << 10).unwrap();
    peer.connect(&listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0.into(), peer.into())
}

fn target(socket: &TcpStream) -> types::Fd {
    types::Fd(socket.as_raw_fd())
}

/// Submits operations, numbered from 0, and returns what completes during that one enter.
///
/// # Safety
/// As for [`Queue::push`].
unsafe fn submit(queue: &mut Queue, entries: Vec<Entry>) -> Vec<Completion> {
    for (number, entry) in entries.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { queue.push(entry.user_data(number as u64)) };
    }
    queue.enter().unwrap();
    assert!(!queue.unsubmitted());
    drain(queue)
}

fn drain(queue: &mut Queue) -> Vec<Completion> {
    let mut completions = Vec::new();
    queue.drain(|completion| completions.push(completion));
    completions
}

/// Attempts an inline send and returns its result, if it has a completion at all.
fn attempt(queue: &mut Queue, socket: &TcpStream, batch: &Batch) -> Option<i32> {
    let (entry, gather) = inline_entry(target(socket), batch, &mut Vec::new()).unwrap();
    // SAFETY: batch and list of parts are there until the operation is consumed.
    let completions = unsafe { submit(queue, vec![entry.flags(Flags::SKIP_SUCCESS)]) };
    drop(gather);
    assert!(completions.len() <= 1);
    completions.first().map(|completion| completion.result)
}

fn both_kinds(len: usize) -> [Batch; 2] {
    let frame = || Frame::new(vec![7; len / 4].into());
    [Batch::Own(vec![7; len]), Batch::Many(vec![frame(), frame(), frame(), frame()])]
}

/// Asserts that exactly `count` bytes were written.
fn assert_written(socket: TcpStream, mut peer: TcpStream, count: usize) {
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), count);
}

#[test]
fn an_inline_send_that_fits_has_no_completion() {
    let mut queue = queue(8, 8);
    let (socket, peer) = pair();
    for batch in both_kinds(4000) {
        assert_eq!(attempt(&mut queue, &socket, &batch), None);
    }
    assert_written(socket, peer, 8000);
}

/// Not an attempt is made after the submission: what is left when there is room again stays left.
#[test]
fn an_inline_send_that_fits_in_part_completes_with_that_part_and_is_over() {
    for kind in 0..2 {
        let mut queue = queue(8, 8);
        let (socket, peer) = pair();
        let mut written = 0;
        // The system still moves bytes on to the peer while there is room there.
        loop {
            let [own, many] = both_kinds(1 << 20);
            let batch = if kind == 0 { own } else { many };
            match attempt(&mut queue, &socket, &batch).expect("a completion") {
                count @ 1..0x10_0000 => written += count as usize,
                error => break assert_eq!(error, -libc::EAGAIN),
            }
        }
        assert!(written > 0);
        assert_written(socket, peer, written);
        queue.enter().unwrap();
        assert!(drain(&mut queue).is_empty());
    }
}

#[test]
fn an_inline_send_to_a_broken_connection_completes_with_the_error() {
    for batch in both_kinds(4000) {
        let mut queue = queue(8, 8);
        let (socket, peer) = pair();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(attempt(&mut queue, &socket, &batch), Some(-libc::ECONNRESET));
        assert_eq!(attempt(&mut queue, &socket, &batch), Some(-libc::EPIPE));
    }
}

/// A failure that finds the completion queue full is on the overflow list when the enter that
/// consumed it returns, and the flag for that is set.
#[test]
fn failures_beyond_the_completion_queue_are_on_the_overflow_list_at_once() {
    let mut queue = queue(2, 2);
    let (socket, _peer) = pair();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let batch = Batch::Own(vec![7; 10]);
    for round in 0..2 {
        for _ in 0..2 {
            let (entry, _) = inline_entry(target(&socket), &batch, &mut Vec::new()).unwrap();
            // SAFETY: the batch outlives the operations.
            unsafe { queue.push(entry.flags(Flags::SKIP_SUCCESS)) };
        }
        queue.enter().unwrap();
        assert_eq!(queue.overflowed(), round == 1);
    }
    let results = |got: Vec<Completion>| got.iter().map(|c| c.result).collect::<Vec<_>>();
    assert_eq!(results(drain(&mut queue)), [-libc::EPIPE; 2]);
    queue.enter().unwrap();
    assert_eq!(results(drain(&mut queue)), [-libc::EPIPE; 2]);
    assert!(!queue.overflowed());
}

/// The smallest queue of completions still gets everything, and a receive that ends for want of
/// room ends with its data.
#[test]
fn a_receive_that_overflows_ends_with_its_data() {
    let mut queue = queue(2, 2);
    // SAFETY: `queue` is dropped first, see the end of the function.
    let buffers = unsafe { Buffers::register(queue.uring(), 8, 64) }.unwrap();
    let (socket, mut peer) = pair();
    peer.write_all(&[7; 5 * 64]).unwrap();
    let receive = opcode::RecvMulti::new(target(&socket), GROUP).build();
    // SAFETY: the buffers outlive the ring.
    let mut got = unsafe { submit(&mut queue, vec![receive]) };
    assert!(got.len() <= 2, "more than there is room for");
    assert!(queue.overflowed());
    while queue.overflowed() {
        queue.enter().unwrap();
        got.extend(drain(&mut queue));
    }
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|completion| completion.result == 64));
    let more: Vec<bool> = got.iter().map(|completion| cqueue::more(completion.flags)).collect();
    assert_eq!(more, [true, true, false]);
    drop(queue);
    drop(buffers);
}

/// Completions are made inside `io_uring_enter` only; a flag tells of them without a system call.
#[test]
fn nothing_completes_between_two_enters() {
    let mut queue = queue(8, 8);
    // SAFETY: `queue` is dropped first, see the end of the function.
    let buffers = unsafe { Buffers::register(queue.uring(), 8, 64) }.unwrap();
    let (socket, mut peer) = pair();
    let receive = opcode::RecvMulti::new(target(&socket), GROUP).build();
    // SAFETY: the buffers outlive the ring.
    assert!(unsafe { submit(&mut queue, vec![receive]) }.is_empty());
    assert!(!queue.wants_enter());
    peer.write_all(&[7; 10]).unwrap();
    while !queue.wants_enter() {
        std::hint::spin_loop();
    }
    assert!(drain(&mut queue).is_empty());
    queue.enter().unwrap();
    assert_eq!(drain(&mut queue)[0].result, 10);
    assert!(!queue.wants_enter());
    drop(queue);
    drop(buffers);
}

/// Without `MSG_DONTWAIT` a send goes on until all is written, and completes once.
#[test]
fn a_patient_send_completes_when_all_is_written() {
    let mut queue = queue(8, 8);
    let (socket, mut peer) = pair();
    let mut written = 0;
    while attempt(&mut queue, &socket, &Batch::Own(vec![7; 1000])).is_none() {
        written += 1000;
    }
    let mut stalled = Box::new(Stalled::new(Batch::Own(vec![8; 60_000]), 0));
    let piece = stalled.piece(target(&socket));
    // SAFETY: `stalled` is there until the completion has come.
    assert!(unsafe { submit(&mut queue, vec![piece]) }.is_empty());
    // No other thread reads: valgrind lets none run while this one is inside io_uring_enter.
    peer.set_nonblocking(true).unwrap();
    let (mut got, mut piece) = (Vec::new(), [0; 4000]);
    let completions = loop {
        match peer.read(&mut piece) {
            Ok(count) => got.extend_from_slice(&piece[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        queue.enter().unwrap();
        let completions = drain(&mut queue);
        if !completions.is_empty() {
            break completions;
        }
        assert!(got.len() < written + 60_999, "no completion");
    };
    assert_eq!(completions.len(), 1);
    assert_eq!(completions[0].result, 60_000);
    drop(socket);
    peer.set_nonblocking(false).unwrap();
    peer.read_to_end(&mut got).unwrap();
    assert!(got.len() >= written + 60_000);
    assert!(got.ends_with(&[8; 60_000]));
}

#[test]
fn a_cancellation_hits_what_came_before_it_and_nothing_else() {
    let mut queue = queue(8, 8);
    // SAFETY: `queue` is dropped first, see the end of the function.
    let buffers = unsafe { Buffers::register(queue.uring(), 8, 64) }.unwrap();
    let (socket, mut peer) = pair();
    let receive = || opcode::RecvMulti::new(target(&socket), GROUP).build().user_data(70);
    let cancel = || opcode::AsyncCancel::new(70).build().flags(Flags::SKIP_SUCCESS).user_data(71);
    let mut enter = |entries: Vec<Entry>| {
        // SAFETY: the buffers outlive the ring.
        entries.into_iter().for_each(|entry| unsafe { queue.push(entry) });
        queue.enter().unwrap();
        let seen = |completion: &Completion| (completion.data, completion.result);
        drain(&mut queue).iter().map(seen).collect::<Vec<_>>()
    };
    assert_eq!(enter(vec![receive(), cancel()]), [(70, -libc::ECANCELED)]);
    assert_eq!(enter(vec![cancel(), receive()]), [(71, -libc::ENOENT)]);
    peer.write_all(b"x").unwrap();
    let mut got = Vec::new();
    while got.is_empty() {
        got = enter(Vec::new());
    }
    assert_eq!(got, [(70, 1)]);
    drop(queue);
    drop(buffers);
}
