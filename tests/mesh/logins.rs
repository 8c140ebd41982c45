//! Logins of xxim at several nodes: one connection of a user, platform and device stays.

use std::io::Write;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use prost::Message;
use ringway::protocols::xxim::wire::proto::{PushBody, ResponseBody};
use ringway::wire::websocket::mask_frame;

use crate::cluster::*;
use crate::common::*;
use crate::nats::Nats;
use crate::xxim::{Xxim, request, user_params};

const LOGINS: usize = 200;

/// What a client sees after it has asked for its login.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// It was displaced.
    Closed,
    /// Its request was answered.
    Alive,
}

/// Reads until the end; tells what it sees with the number of the client.
fn watch(mut client: Client, number: usize, tell: impl Fn(usize, Seen)) {
    while let Some(frame) = client.try_frame() {
        if frame.first == 0x88 {
            assert_eq!(frame.close(), (1000, "duplicate connection"));
            return tell(number, Seen::Closed);
        }
        let Ok(push) = PushBody::decode(&*frame.payload) else { continue };
        let answer = ResponseBody::decode(push.data).expect("a response");
        if answer.req_id == "k" {
            tell(number, Seen::Alive);
        }
    }
}

fn next(seen: &Receiver<(usize, Seen)>) -> (usize, Seen) {
    seen.recv_timeout(PATIENCE * 2).expect("something happens to a client")
}

#[test]
fn of_200_simultaneous_logins_on_three_nodes_exactly_one_stays() {
    let nats = Nats::start();
    let nodes = cluster::<3>(&nats);
    let (tell, seen) = channel();
    let start = Arc::new(Barrier::new(LOGINS));
    let mut sockets = Vec::new();
    for number in 0..LOGINS {
        let mut client = Xxim::open_at(nodes[number % 3].binary.address(XXIM), "203.0.113.7");
        client.set_params("d1");
        sockets.push(client.client.socket.try_clone().expect("a descriptor"));
        let (start, tell) = (start.clone(), tell.clone());
        std::thread::spawn(move || {
            start.wait();
            client.request("u", "/v1/conn/white/setUserParams", &user_params("ann", "token"));
            watch(client.client, number, |number, seen| _ = tell.send((number, seen)));
        });
    }
    let mut left: Vec<usize> = (0..LOGINS).collect();
    while left.len() > 1 {
        let (number, what) = next(&seen);
        assert_eq!(what, Seen::Closed);
        left.retain(|other| *other != number);
    }
    // It is the one that the cluster knows: the next login, wherever it is, displaces it.
    for (round, node) in nodes.iter().enumerate() {
        let survivor = left[0];
        let ask = request("k", "/v1/conn/keepAlive", &[]);
        sockets[survivor].write_all(&mask_frame(0x82, [1, 2, 3, 4], &ask)).expect("it is open");
        assert_eq!(next(&seen), (survivor, Seen::Alive), "round {round}");
        let mut client = Xxim::open_at(node.binary.address(XXIM), "203.0.113.7");
        client.set_params("d1");
        client.set_user("ann");
        assert_eq!(next(&seen), (survivor, Seen::Closed), "round {round}");
        let number = sockets.len();
        sockets.push(client.client.socket.try_clone().expect("a descriptor"));
        let tell = tell.clone();
        std::thread::spawn(move || {
            watch(client.client, number, |number, seen| _ = tell.send((number, seen)));
        });
        left = vec![number];
    }
    assert_eq!(seen.recv_timeout(Duration::from_millis(100)).ok(), None);
    let displaced = || nodes.iter().map(|node| node.metric("ringway_xxim_displaced_total"));
    wait_until("all to be counted", || displaced().sum::<u64>() == LOGINS as u64 + 2);
}
