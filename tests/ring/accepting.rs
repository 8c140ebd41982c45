//! Listeners.

use std::collections::HashSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use ringway::engine::ring::Event;
use socket2::Socket;

use crate::support::*;

fn address(listener: &Socket) -> SocketAddr {
    listener.local_addr().unwrap().as_socket().unwrap()
}

#[test]
fn connections_are_accepted_with_the_address_of_the_peer() {
    let mut bench = Bench::new();
    let listeners = [listener(0), listener(0)];
    let addresses = listeners.each_ref().map(address);
    for (index, listener) in listeners.into_iter().enumerate() {
        bench.ring.listen(index, listener.into());
    }
    let peers: Vec<TcpStream> =
        (0..100).map(|at| TcpStream::connect(addresses[at % 2]).unwrap()).collect();
    let wanted: HashSet<(usize, SocketAddr)> =
        (0..100).map(|at| (at % 2, peers[at].local_addr().unwrap())).collect();
    let mut got = HashSet::new();
    for slot in 0..100 {
        let Event::Accepted { listener, socket, peer } = bench.event() else { panic!("accept") };
        got.insert((listener, peer));
        bench.ring.adopt(slot, socket);
    }
    assert_eq!(got, wanted);
    bench.idle();
}

/// Such sockets come from other libraries; the kernel would take `O_NONBLOCK` for a wish not to
/// wait where that was the case.
#[test]
fn non_blocking_sockets_wait_all_the_same() {
    let mut bench = Bench::new();
    let listening = listener(0);
    listening.set_nonblocking(true).unwrap();
    let to = address(&listening);
    bench.ring.listen(0, listening.into());
    bench.idle();
    let peer = TcpStream::connect(to).unwrap();
    assert!(matches!(bench.event(), Event::Accepted { .. }));
    drop(peer);

    let (socket, mut peer) = pair(SMALL);
    let socket = Socket::from(socket);
    socket.set_nonblocking(true).unwrap();
    bench.ring.adopt(0, socket.into());
    bench.idle();
    peer.write_all(b"hello").unwrap();
    assert_eq!(bench.receive(0, 5), b"hello");
    let bytes = pattern(1, 0..1 << 20);
    bench.ring.send(0, own(&bytes));
    assert_same(&bench.stalled_then_sent(0, &peer, bytes.len()), &bytes);
}

#[test]
fn a_peer_that_is_gone_before_it_is_accepted_is_not_reported() {
    let mut bench = Bench::new();
    let listening = listener(0);
    let to = address(&listening);
    reset(TcpStream::connect(to).unwrap());
    bench.ring.listen(0, listening.into());
    let alive = TcpStream::connect(to).unwrap();
    let Event::Accepted { peer, .. } = bench.event() else { panic!("not an accept") };
    assert_eq!(peer, alive.local_addr().unwrap());
    bench.idle();
}

#[test]
fn unlisten_refuses_and_resets() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        let listening = listener(0);
        let to = address(&listening);
        bench.ring.listen(0, listening.into());
        bench.idle();
        // Accepted by the kernel, not reported: closed. Or still in the backlog: reset.
        let waiting: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(to).unwrap()).collect();
        bench.ring.unlisten(0);
        bench.idle();
        assert!(TcpStream::connect(to).is_err());
        for mut peer in waiting {
            let end = std::io::Read::read(&mut peer, &mut [0]);
            assert!(matches!(end, Ok(0) | Err(_)), "still connected");
        }
    }
    bench.ring.unlisten(0);
    bench.ring.unlisten(7);
    bench.ring.relisten(0);
    bench.ring.relisten(7);
    bench.idle();
}
