//! Peers that end their side right behind their last bytes: what came whole before is carried out
//! and answered.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

/// Sends bytes and FIN together; everything that comes back.
fn talk(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = connect(address);
    send_and_end(&mut socket, bytes);
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an orderly end");
    answer
}

/// In one segment with the FIN, if the bytes fit into one.
fn send_and_end(socket: &mut TcpStream, bytes: &[u8]) {
    rustix::net::sockopt::set_tcp_cork(&*socket, true).expect("a socket");
    socket.write_all(bytes).expect("it is read");
    socket.shutdown(Shutdown::Write).expect("a socket");
}

#[test]
fn an_http_request_is_answered_every_time() {
    let server = Server::start(config());
    for round in 0..200 {
        let answer = talk(server.address(CLIENTS), b"GET /netsvr HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "round {round}: {answer:?}");
    }
}

#[test]
fn a_close_frame_is_answered_and_an_echo_is_written_before() {
    let server = Server::start(config());
    let close = masked(0x88, &[0x03, 0xe8]);
    for (path, data) in [("/netsvr", &b""[..]), ("/echo", b"last")] {
        for round in 0..100 {
            let mut client = Client::open(server.address(CLIENTS), path);
            let mut bytes = if data.is_empty() { Vec::new() } else { masked(0x82, data) };
            bytes.extend_from_slice(&close);
            send_and_end(&mut client.socket, &bytes);
            if !data.is_empty() {
                assert_eq!(client.frame().payload, data, "round {round}");
            }
            assert_eq!(client.frame().close().0, 1000, "{path}, round {round}");
            client.expect_end();
        }
    }
}

#[test]
fn questions_of_a_backend_are_answered_whatever_their_number() {
    let server = Server::start(config());
    let _clients = client_pair(&server, "");
    // Asks every shard.
    let question = framed(cmd::UNIQ_ID_LIST, &());
    for count in [1, 2, 5, 100, 1000, 3000] {
        let mut bytes = question.repeat(count);
        let (frames, rest) = whole_frames(&talk(server.address(WORKERS), &bytes));
        assert_eq!((frames.len(), rest), (count, 0));
        for (_, body) in &frames {
            let list: proto::UniqIdListResp = prost::Message::decode(&body[..]).expect("an answer");
            assert_eq!(list.uniq_ids.len(), 2);
        }
        // A part of one more question changes nothing.
        bytes.extend_from_slice(&question[..3]);
        let (frames, _) = whole_frames(&talk(server.address(TASKS), &bytes));
        assert_eq!(frames.len(), count);
    }
}

#[test]
fn questions_before_a_bad_frame_are_answered() {
    let server = Server::start(config());
    for (end, bad) in [(false, &[0xff; 16][..]), (true, &[0xff; 16])] {
        let mut bytes = framed(cmd::UNIQ_ID_LIST, &()).repeat(50);
        bytes.extend_from_slice(bad);
        let mut socket = connect(server.address(TASKS));
        socket.write_all(&bytes).expect("it is read");
        if end {
            socket.shutdown(Shutdown::Write).expect("a socket");
        }
        let mut answers = Vec::new();
        socket.read_to_end(&mut answers).expect("an orderly end");
        assert_eq!(whole_frames(&answers).0.len(), 50);
    }
}

#[test]
fn what_a_client_says_before_it_leaves_reaches_the_worker() {
    let server = Server::start(config());
    let mut worker = server.worker(4);
    for round in 0..50 {
        let mut client = server.client();
        let text = format!("last words {round}");
        let mut bytes = masked(0x82, text.as_bytes());
        if round % 2 == 0 {
            bytes.extend(masked(0x88, &[0x03, 0xe8]));
        }
        send_and_end(&mut client.socket, &bytes);
        assert_eq!(&*worker.transfer().data, text.as_bytes());
        drop(client);
    }
}

#[test]
fn a_peer_that_takes_no_answers_is_given_up_in_time() {
    let mut config = config_with_admin();
    config.runtime.close_timeout = Duration::from_millis(300);
    let server = Server::start(config);
    let _clients = client_pair(&server, "");
    let mut lazy = connect(server.address(TASKS));
    rustix::net::sockopt::set_socket_recv_buffer_size(&lazy, 4096).expect("a socket");
    // Until the answers stand still: more is not read.
    let question = framed(cmd::UNIQ_ID_LIST, &()).repeat(1000);
    lazy.set_nonblocking(true).expect("a socket");
    let stalled = || prometheus_sum(&server, "ringway_connections_stalled", "") == 1.0;
    wait_until("it does not take its answers", || lazy.write(&question).is_err() && stalled());
    lazy.shutdown(Shutdown::Write).expect("a socket");
    let connections = || prometheus_sum(&server, "ringway_connections", "");
    wait_until("it is given up", || connections() == 2.0);
}
