//! Many requests at once, and requests that become Transfers of netsvr.

use std::collections::HashSet;

use prost::Message;
use ringway::config::model::{XximRoute, XximTarget};
use ringway::wire::netsvr::{Cmd, proto as netsvr};
use ringway::wire::xxim::proto::{CommonReq, GetFriendListReq, RequestBody};

use crate::common::{PATIENCE, Server};
use crate::support::{Xxim, config};
use crate::upstream::answering;

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
