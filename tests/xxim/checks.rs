//! `xxim.hooks.before_request`: a backend permits requests (section 4.1, step 6).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use ringway::config::all::Config;
use ringway::protocols::xxim::config::upstream::XximHooks;
use ringway::protocols::xxim::service::grpc::im_service_server::{ImService, ImServiceServer};
use ringway::protocols::xxim::wire::proto as pb;
use tonic::service::Routes;
use tonic::{Response, Status};

use crate::common::{Server, wait_until};
use crate::grpc_server;
use crate::support::{Xxim, config, metric, observed, request, user_params};
use crate::upstream::{Upstream, answering};

const SEND: &str = "/v1/msg/sendMsgList";
const LOGIN: &str = "/v1/user/white/login";
const KEEP_ALIVE: &str = "/v1/conn/keepAlive";
const SET_USER: &str = "/v1/conn/white/setUserParams";
const LONG: Duration = Duration::from_secs(600);

fn asking(upstream: &str, hooks: &str, grpc: bool, cache: Duration) -> Config {
    let mut config = config(upstream);
    config.xxim_upstreams.hooks = XximHooks {
        url: Some(hooks.to_owned()),
        grpc,
        before_request: true,
        before_request_cache: cache,
        ..XximHooks::default()
    };
    observed(config)
}

fn refusal(code: i32, msg: &str) -> Vec<u8> {
    let resp = pb::CommonResp { code, msg: Some(msg.into()), ..Default::default() };
    pb::BeforeRequestResp { common_resp: Some(resp) }.encode_to_vec()
}

/// A backend that permits everything, and what it was asked.
fn permitting() -> (String, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    let url = answering(move |call| {
        if call.method == "/beforeRequest" {
            let question = pb::BeforeRequestReq::decode(&*call.body).expect("a BeforeRequestReq");
            let who = question.common_req.expect("always");
            let text = format!("{} {} {} {}", who.user_id, who.token, who.ip, question.method);
            kept.lock().unwrap().push(text);
        }
        Vec::new()
    });
    (url, asked)
}

#[test]
fn a_permission_counts_for_its_token_and_time_and_white_requests_need_none() {
    let upstream = answering(|_| Vec::new());
    for (cache, times) in [(LONG, 1), (Duration::ZERO, 3)] {
        let (hooks, asked) = permitting();
        let server = Server::start(asking(&upstream, &hooks, false, cache));
        let mut client = Xxim::open(&server);
        assert_eq!(client.ask("w", LOGIN, b"").code, 0, "nobody is asked about white methods");
        client.set_params("d");
        client.set_user("ann");
        assert_eq!(client.ask("w", LOGIN, b"").code, 0);
        for _ in 0..3 {
            assert_eq!(client.ask("r", SEND, b"").code, 0);
        }
        let question = format!("ann token 203.0.113.7 {SEND}");
        assert_eq!(*asked.lock().unwrap(), vec![question.clone(); times], "{cache:?}");
        // Another token is asked about anew; so is what the gateway answers itself.
        assert_eq!(client.ask("u", SET_USER, &user_params("ann", "newer")).code, 0);
        assert_eq!(client.ask("k", KEEP_ALIVE, b"").code, 0);
        let asked = asked.lock().unwrap();
        assert_eq!(asked.last(), Some(&format!("ann newer 203.0.113.7 {KEEP_ALIVE}")));
        assert_eq!(asked.len(), times + 1);
        let counted = || metric(&server, "ringway_xxim_requests_checked_total", "");
        wait_until("questions are counted", || counted() == (times + 1) as f64);
    }
}

/// What is refused does not reach the upstream, keeps its own code and is asked about again.
#[test]
fn a_refused_request_is_answered_with_the_code_of_the_backend() {
    let upstream = Upstream::start();
    let answers = Mutex::new(vec![Vec::new(), refusal(9, "no"), refusal(4, "expired")]);
    let hooks = answering(move |call| match call.method.as_str() {
        "/beforeRequest" => answers.lock().unwrap().pop().expect("asked three times"),
        _ => Vec::new(),
    });
    let server = Server::start(asking(&upstream.url, &hooks, false, LONG));
    let mut client = Xxim::login(&server, "ann", "d");
    for (code, msg) in [(4, "expired"), (9, "no")] {
        let answer = client.ask("r", SEND, b"");
        let resp = pb::CommonResp::decode(answer.data).expect("a CommonResp");
        assert_eq!((answer.code, resp.code, resp.msg()), (code, code, msg));
    }
    assert!(upstream.waits().is_none(), "a refused request reached the upstream");
    client.request("r", SEND, b"");
    upstream.call().answer(b"");
    assert_eq!(client.response().code, 0);
}

/// Requests that come while the backend thinks keep their order, an orderly close included.
#[test]
fn requests_wait_in_order_while_a_backend_is_asked() {
    const ALL: usize = 20;
    let upstream = Upstream::start();
    let hooks = Upstream::start();
    let server = Server::start(asking(&upstream.url, &hooks.url, false, LONG));
    let mut client = Xxim::login(&server, "ann", "d");
    let connected = hooks.call();
    assert_eq!(connected.method, "/afterConnect");
    connected.answer(b"");
    for number in 0..ALL {
        client.send(&request(&number.to_string(), SEND, b""));
    }
    let question = hooks.call();
    drop(client);
    assert!(hooks.waits().is_none(), "one question at a time");
    question.answer(b"");
    let mut calls: Vec<String> = Vec::new();
    for _ in 0..ALL {
        let call = upstream.call();
        calls.push(call.header("x-xxim-req-id").expect("always").to_owned());
        call.answer(b"");
    }
    calls.sort_by_key(|id| id.parse::<usize>().expect("a number"));
    calls.dedup();
    assert_eq!(calls.len(), ALL, "each of them once");
    let mut client = Xxim::login(&server, "bob", "d");
    for number in 0..ALL {
        client.send(&request(&number.to_string(), KEEP_ALIVE, b""));
    }
    // Behind the hooks of the two logins and the departure.
    let question = loop {
        let call = hooks.call();
        if call.method == "/beforeRequest" {
            break call;
        }
        call.answer(b"");
    };
    question.answer(b"");
    for number in 0..ALL {
        assert_eq!(client.response().req_id, number.to_string());
    }
}

#[test]
fn while_the_backend_can_not_be_asked_requests_get_code_4_and_it_is_counted() {
    let upstream = answering(|_| Vec::new());
    let server = Server::start(asking(&upstream, "http://127.0.0.1:9", false, LONG));
    let mut client = Xxim::login(&server, "ann", "d");
    for _ in 0..2 {
        let answer = client.ask("r", SEND, b"");
        let resp = pb::CommonResp::decode(answer.data).expect("a CommonResp");
        assert_eq!((answer.code, resp.msg()), (4, "认证失败，请重新登录"));
    }
    assert_eq!(client.ask("w", LOGIN, b"").code, 0, "the connection stays");
    let label = "callback=\"before_request\",reason=\"unreachable\"";
    let failed = || metric(&server, "ringway_callback_failures_total", label);
    wait_until("both are counted", || failed() == 2.0);
}

/// The imService of the original, as far as requests are concerned.
struct Im;

#[tonic::async_trait]
impl ImService for Im {
    async fn before_connect(
        &self,
        _: tonic::Request<pb::BeforeConnectReq>,
    ) -> Result<Response<pb::BeforeConnectResp>, Status> {
        Ok(Response::new(pb::BeforeConnectResp::default()))
    }

    async fn before_request(
        &self,
        request: tonic::Request<pb::BeforeRequestReq>,
    ) -> Result<Response<pb::BeforeRequestResp>, Status> {
        match &*request.into_inner().common_req.unwrap_or_default().user_id {
            "ann" => Ok(Response::new(pb::BeforeRequestResp::default())),
            "ban" => Err(Status::unauthenticated("ip被封禁")),
            _ => Err(Status::internal("oops")),
        }
    }

    async fn after_connect(
        &self,
        _: tonic::Request<pb::AfterConnectReq>,
    ) -> Result<Response<pb::CommonResp>, Status> {
        Ok(Response::new(pb::CommonResp::default()))
    }

    async fn after_disconnect(
        &self,
        _: tonic::Request<pb::AfterDisconnectReq>,
    ) -> Result<Response<pb::CommonResp>, Status> {
        Ok(Response::new(pb::CommonResp::default()))
    }
}

#[test]
fn a_banned_client_is_closed_with_the_words_of_im_service() {
    let runtime = grpc_server::runtime();
    let routes = Routes::new(ImServiceServer::new(Im)).into_axum_router();
    let hooks = grpc_server::serve(&runtime, routes);
    let upstream = answering(|_| Vec::new());
    let server = Server::start(asking(&upstream, &hooks, true, LONG));
    assert_eq!(Xxim::login(&server, "ann", "d").ask("r", SEND, b"").code, 0);
    assert_eq!(Xxim::login(&server, "eve", "d").ask("r", SEND, b"").code, 4, "an error of gRPC");
    let mut banned = Xxim::login(&server, "ban", "d");
    let answer = banned.ask("r", SEND, b"");
    let resp = pb::CommonResp::decode(answer.data).expect("a CommonResp");
    assert_eq!((answer.code, resp.msg()), (4, "ip被封禁"));
    assert_eq!(banned.client.frame().close(), (3000, "ip被封禁"));
}
