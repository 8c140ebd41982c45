//! Many requests at once, and requests that become Transfers of netsvr.

use std::collections::HashSet;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message;
use ringway::config::model::Verifier;
use ringway::protocols::xxim::config::upstream::{XximRoute, XximTarget};
use ringway::protocols::xxim::wire::proto::{CommonReq, GetFriendListReq, RequestBody};
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::{Cmd, proto as netsvr};

use crate::common::{PATIENCE, Server, wait_until};
use crate::support::{Xxim, config, metric, observed, request, user_params};
use crate::upstream::{Upstream, answering};

const SEND: &str = "/v1/msg/sendMsgList";

#[test]
fn of_64_concurrent_requests_a_thousand_times_each_is_answered_once() {
    const CONCURRENT: usize = 64;
    const ALL: usize = 64_000;
    let upstream = answering(|_| Vec::new());
    let server = Server::start(config(&upstream));
    for encrypted in [false, true] {
        let mut client = match encrypted {
            true => Xxim::encrypted(&server),
            false => Xxim::open(&server),
        };
        if !encrypted {
            client.set_params("d");
        }
        client.set_user("u");
        let all = if encrypted { ALL / 8 } else { ALL };
        let mut open: HashSet<String> = HashSet::new();
        let mut next = 0;
        let mut answered = 0;
        while answered < all {
            while next < all && open.len() < CONCURRENT {
                let id = format!("{next:032x}");
                client.request(&id, SEND, b"\x0a\x00");
                open.insert(id);
                next += 1;
            }
            let response = client.response();
            assert_eq!((response.code, &*response.method), (0, SEND));
            assert!(open.remove(&response.req_id), "{} was not asked", response.req_id);
            answered += 1;
        }
        client.keep_alive();
    }
}

#[test]
fn requests_become_transfers_and_workers_answer_with_pushes() {
    let mut config = config("http://127.0.0.1:9");
    let route = XximRoute::new("/v1/worker/", XximTarget::Worker, PATIENCE);
    config.xxim_upstreams.routes.insert(0, route);
    let server = Server::start(config);
    let mut client = Xxim::login(&server, "u", "d");
    // Nobody to give it to.
    assert_eq!(client.ask("a", "/v1/worker/echo", b"").code, 8);
    let mut worker = server.worker(4);
    let smuggled = CommonReq { user_id: "victim".into(), ..CommonReq::default() };
    let data = GetFriendListReq { common_req: Some(smuggled), opt: 1, ..Default::default() };
    assert_eq!(client.ask("b", "/v1/worker/echo", &data.encode_to_vec()).code, 0);
    let transfer: netsvr::Transfer = worker.expect(Cmd::Transfer.number());
    assert_eq!(transfer.customer_id, "u");
    let request = RequestBody::decode(transfer.data).expect("a RequestBody");
    assert_eq!((&*request.req_id, &*request.method), ("b", "/v1/worker/echo"));
    let read = GetFriendListReq::decode(request.data).expect("the message");
    let own = read.common_req.expect("the gateway's");
    assert_eq!((&*own.user_id, &*own.platform, read.opt), ("u", "web", 1));
    let cast = netsvr::SingleCast { uniq_id: transfer.uniq_id, data: b"hello".to_vec().into() };
    worker.send(Cmd::SingleCast.number(), &cast);
    let push = client.push();
    assert_eq!((push.event, &*push.data), (0, &b"hello"[..]));
}

/// Ways in which a client says that it will send nothing more.
#[derive(Clone, Copy, Debug)]
enum End {
    CloseFrame,
    HalfClose,
    Drop,
}

/// Login, a request and the end come in one packet: whatever is under way then, and whether or not
/// the login is verified yet, the request is carried out.
#[test]
fn what_was_received_before_an_orderly_close_is_carried_out() {
    const CLIENTS: usize = 50;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let url = answering(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    });
    let verifier = answering(|_| Vec::new());
    let mut config = config(&url);
    config.login.verifier = Verifier::Http(verifier);
    let server = Server::start(observed(config));
    for (turn, end) in [End::CloseFrame, End::HalfClose, End::Drop].into_iter().enumerate() {
        for number in 0..CLIENTS {
            let mut client = Xxim::open(&server);
            let user = format!("{turn}-{number}");
            let mut packet = Vec::new();
            for (method, data) in [
                ("/v1/conn/white/setCxnParams", b"\x12\x03web".to_vec()),
                ("/v1/conn/white/setUserParams", user_params(&user, "t")),
                (SEND, Vec::new()),
                (SEND, Vec::new()),
            ] {
                let message = request("r", method, &data);
                packet.extend(mask_frame(0x82, [1, 2, 3, 4], &message));
            }
            if matches!(end, End::CloseFrame) {
                packet.extend(mask_frame(0x88, [5; 4], &1000_u16.to_be_bytes()));
            }
            client.client.write(&packet);
            match end {
                End::CloseFrame | End::Drop => {}
                End::HalfClose => {
                    client.client.socket.shutdown(Shutdown::Write).expect("it is open")
                }
            }
        }
        let all = (turn + 1) * CLIENTS * 2;
        wait_until("every request has reached the backend", || calls.load(Ordering::SeqCst) == all);
    }
    let well = || metric(&server, "ringway_upstream_calls_total", "result=\"success\"");
    wait_until("every call was brought to its end", || well() == 300.0);
}

/// What is given up nevertheless is counted.
#[test]
fn what_a_connection_sent_and_nobody_carried_out_is_counted() {
    let verifier = Upstream::start();
    let mut config = config("http://127.0.0.1:9");
    config.login.verifier = Verifier::Http(verifier.url.clone());
    config.login.timeout = PATIENCE;
    config.runtime.close_timeout = Duration::from_millis(50);
    let server = Server::start(observed(config));
    let mut client = Xxim::open(&server);
    client.set_params("d");
    client.request("u", "/v1/conn/white/setUserParams", &user_params("ann", "t"));
    client.request("r", SEND, b"");
    drop(client);
    // It never answers.
    let _call = verifier.call();
    let unread = || metric(&server, "ringway_dropped_total", "reason=\"unread\"");
    wait_until("it is counted", || unread() == 1.0);
}
