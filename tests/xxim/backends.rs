//! Backends of every kind against real clients: an upstream that dies under load, pushes and kicks
//! with a gRPC client, hooks, and the demo's business process.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use prost::Message;
use ringway::config::model::TlsFiles;
use ringway::demo::xxim as demo;
use ringway::protocols::xxim::config::push::XximPushService;
use ringway::protocols::xxim::config::upstream::{XximHooks, XximUpstream, XximUpstreams};
use ringway::protocols::xxim::service::grpc::conn_service_client::ConnServiceClient;
use ringway::protocols::xxim::wire::proto as pb;
use tokio::runtime::Runtime;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::common::{Server, wait_until};
use crate::support::{Xxim, config, user_params};
use crate::upstream::Upstream;

const SEND: &str = "/v1/msg/sendMsgList";
/// MD5 of the demo's password.
const PASSWORD: &str = "e10adc3949ba59abbe56e057f20f883e";

/// An upstream that can be killed as a process would be: all its sockets at once.
struct Mortal {
    url: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
    dead: Arc<AtomicBool>,
}

impl Mortal {
    fn start() -> Mortal {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (open, dead) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, over) = (open.clone(), dead.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut open: std::sync::MutexGuard<'_, Vec<TcpStream>> = kept.lock().unwrap();
                if over.load(Ordering::SeqCst) {
                    return;
                }
                open.push(stream.try_clone().expect("a descriptor"));
                std::thread::spawn(move || {
                    let mut input = [0; 65536];
                    // A request comes in one piece: it is written in one.
                    while stream.read(&mut input).is_ok_and(|count| count > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Mortal { url, open, dead }
    }

    fn kill(&self) {
        let mut open = self.open.lock().unwrap();
        self.dead.store(true, Ordering::SeqCst);
        for stream in open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(open);
        // The thread lets go of the port.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

#[test]
fn a_kill_of_the_upstream_under_load_costs_no_request_its_answer() {
    const ALL: usize = 4000;
    let upstream = Mortal::start();
    let mut config = config(&upstream.url);
    config.xxim_upstreams.upstreams[0] =
        XximUpstream { circuit_failures: 8, ..config.xxim_upstreams.upstreams[0].clone() };
    let server = Server::start(config);
    let mut client = Xxim::login(&server, "u", "d");
    let mut open: HashSet<String> = HashSet::new();
    let (mut next, mut good, mut bad) = (0, 0, 0);
    while good + bad < ALL {
        while next < ALL && open.len() < 64 {
            let id = format!("{next:032x}");
            client.request(&id, SEND, b"\x0a\x00");
            open.insert(id);
            next += 1;
        }
        let response = client.response();
        assert!(open.remove(&response.req_id), "{} has two answers", response.req_id);
        match response.code {
            0 => good += 1,
            8 => bad += 1,
            other => panic!("code {other}"),
        }
        if good == 1000 && bad == 0 {
            upstream.kill();
        }
    }
    assert!(bad > 0, "all {good} were good");
    client.keep_alive();
}

fn push_service() -> XximPushService {
    XximPushService {
        bind: "127.0.0.1:0".parse().expect("an address"),
        secret: String::new(),
        allow_from: Vec::new(),
        tls: None,
        allow_broadcast: false,
        cluster: false,
        expose_secrets: false,
        request_bytes_max: 1 << 20,
        bounds: Default::default(),
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn grpc(runtime: &Runtime, server: &Server) -> ConnServiceClient<Channel> {
    let address = server.gateway().push_address().expect("the push service listens");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    ConnServiceClient::new(runtime.block_on(endpoint.connect()).expect("it listens"))
}

#[test]
fn a_grpc_backend_pushes_looks_and_kicks_on_all_shards() {
    let mut config = config("http://127.0.0.1:9");
    config.xxim_upstreams.push = Some(push_service());
    let server = Server::start(config);
    // Enough for both shards to have some.
    let mut clients: Vec<_> =
        (0..16).map(|number| Xxim::login(&server, "ann", &format!("d{number}"))).collect();
    let mut other = Xxim::login(&server, "bob", "d0");
    let runtime = runtime();
    let mut backend = grpc(&runtime, &server);
    let filter = || Some(pb::GetUserConnReq { user_ids: vec!["ann".into()], ..Default::default() });
    let found = backend.get_user_conn(filter().expect("some"));
    let found = runtime.block_on(found).expect("OK").into_inner();
    let devices: HashSet<_> = found.conn_params.iter().map(|conn| &*conn.device_id).collect();
    assert_eq!(devices.len(), 16);
    assert!(found.conn_params.iter().all(|conn| conn.token.is_empty() && conn.timestamp > 0));
    for number in 0..20_u8 {
        let data = vec![number].into();
        let request = pb::SendMsgReq { get_user_conn_req: filter(), event: 1, data };
        let sent = runtime.block_on(backend.send_msg(request)).expect("OK").into_inner();
        assert_eq!((sent.success_conn_params.len(), sent.failed_conn_params.len()), (16, 0));
    }
    for client in &mut clients {
        for number in 0..20_u8 {
            let push = client.push();
            assert_eq!((push.event, &*push.data), (1, &[number][..]), "in order");
        }
    }
    let kick = pb::KickUserConnReq { get_user_conn_req: filter() };
    runtime.block_on(backend.kick_user_conn(kick)).expect("OK");
    for client in &mut clients {
        client.expect_close("C07");
    }
    other.keep_alive();
    wait_until("the kicked connections are gone", || {
        let found = backend.get_user_conn(filter().expect("some"));
        runtime.block_on(found).expect("OK").into_inner().conn_params.is_empty()
    });
}

#[test]
fn the_certificates_of_the_push_service_are_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name");
        std::fs::write(&cert, made.cert.pem()).expect("ours");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("ours");
        made.cert.pem()
    };
    let first = renew();
    let mut config = config("http://127.0.0.1:9");
    let tls = Some(TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: None });
    config.xxim_upstreams.push = Some(XximPushService { tls, ..push_service() });
    let server = Server::start(config);
    let port = server.gateway().push_address().expect("the push service listens").port();
    let runtime = runtime();
    let works = |authority: &str| {
        let trust = Certificate::from_pem(authority);
        let tls = ClientTlsConfig::new().ca_certificate(trust).domain_name("localhost");
        let url = Endpoint::from_shared(format!("https://localhost:{port}")).expect("a URL");
        let _context = runtime.enter();
        let mut backend =
            ConnServiceClient::new(url.tls_config(tls).expect("valid").connect_lazy());
        runtime.block_on(backend.keep_alive(pb::KeepAliveReq::default())).is_ok()
    };
    assert!(works(&first));
    let second = renew();
    assert!(works(&first) && !works(&second), "nobody has said that there are new files");
    server.gateway().reload_certificates().expect("good files");
    assert!(works(&second) && !works(&first));
    std::fs::write(&cert, "no certificate").expect("ours");
    assert!(server.gateway().reload_certificates().is_err());
    assert!(works(&second), "what can not be read changes nothing");
}

#[test]
fn hooks_tell_of_logins_and_departures() {
    let hooks = Upstream::start();
    let mut config = config("http://127.0.0.1:9");
    config.xxim_upstreams.hooks =
        XximHooks { url: Some(hooks.url.clone()), ..XximHooks::default() };
    let server = Server::start(config);
    let client = Xxim::login(&server, "ann", "d1");
    let call = hooks.call();
    assert_eq!(call.method, "/afterConnect");
    let told = pb::AfterConnectReq::decode(&*call.body).expect("an AfterConnectReq");
    let param = told.conn_param.expect("always");
    assert_eq!((&*param.user_id, &*param.device_id, &*param.ips), ("ann", "d1", "203.0.113.7"));
    assert_eq!((param.aes_key, param.aes_iv), (None, None));
    // As the original writes names, however the client did.
    assert_eq!(param.headers.get("X-Forwarded-For").map(String::as_str), Some("203.0.113.7"));
    assert_eq!(param.headers.get("Sec-Websocket-Version").map(String::as_str), Some("13"));
    assert!(told.connected_at.parse::<u64>().is_ok_and(|at| at > 0));
    call.answer(b"");
    drop(client);
    let call = hooks.call();
    assert_eq!(call.method, "/afterDisconnect");
    let told = pb::AfterDisconnectReq::decode(&*call.body).expect("an AfterDisconnectReq");
    assert_eq!(told.conn_param.expect("always").user_id, "ann");
    call.answer(b"");
}

/// The newest token is that of the departure; who the connection was before departs first.
#[test]
fn hooks_of_a_connection_that_logs_in_again_have_its_newest_token_and_come_in_order() {
    let hooks = Upstream::start();
    let mut config = config("http://127.0.0.1:9");
    config.xxim_upstreams.hooks =
        XximHooks { url: Some(hooks.url.clone()), ..XximHooks::default() };
    let server = Server::start(config);
    let mut client = Xxim::login(&server, "ann", "d1");
    for (user, token) in [("ann", "newer"), ("ann", "newest"), ("bob", "other")] {
        let set_user = user_params(user, token);
        assert_eq!(client.ask("u", "/v1/conn/white/setUserParams", &set_user).code, 0);
    }
    client.set_params("d2");
    drop(client);
    let mut told = Vec::new();
    for _ in 0..4 {
        let call = hooks.call();
        // The same fields: the body of AfterDisconnect has one more.
        let body = pb::AfterDisconnectReq::decode(&*call.body).expect("a hook");
        let param = body.conn_param.expect("always");
        told.push(format!("{} {} {} {}", call.method, param.user_id, param.token, param.device_id));
        call.answer(b"");
    }
    assert_eq!(
        told,
        [
            "/afterConnect ann token d1",
            "/afterDisconnect ann newest d1",
            "/afterConnect bob other d1",
            "/afterDisconnect bob other d2"
        ]
    );
}

/// A gateway with the demo's business process behind it.
fn demo() -> (Server, demo::Business) {
    let mut config = config("http://127.0.0.1:9");
    config.xxim_upstreams =
        XximUpstreams { push: Some(push_service()), ..XximUpstreams::default() };
    let upstream = demo::Upstream::bind().expect("a free port");
    upstream.join(&mut config.xxim_upstreams);
    let server = Server::start(config);
    let business = upstream.start(server.gateway().push_address()).expect("a thread");
    (server, business)
}

/// A client that went through steps 3 to 5 of section 8.
fn demo_client(server: &Server, user: &str) -> Xxim {
    let mut client = Xxim::open(server);
    client.set_params("xxxx");
    let login = pb::LoginReq { id: user.into(), password: PASSWORD.into(), ..Default::default() };
    let answer = client.ask("l", "/v1/user/white/login", &login.encode_to_vec());
    assert_eq!(answer.code, 0, "{answer:?}");
    let login = pb::LoginResp::decode(answer.data).expect("a LoginResp");
    assert!(!login.token.is_empty());
    client.set_user(user);
    client
}

#[test]
fn the_demo_serves_the_scenario_and_pushes_messages_to_the_members() {
    let (server, _business) = demo();
    let mut wrong = Xxim::open(&server);
    wrong.set_params("x");
    let login = pb::LoginReq { id: "ann".into(), password: "no".into(), ..Default::default() };
    let refused = wrong.ask("l", "/v1/user/white/login", &login.encode_to_vec());
    assert_eq!(refused.code, 5, "a toast");
    let mut ann = demo_client(&server, "test123456");
    let mut bob = demo_client(&server, "bob");
    let page = Some(pb::Page { page: 1, size: 999_999 });
    let request = pb::GetFriendListReq { page, ..Default::default() };
    let answer = ann.ask("f", "/v1/relation/getFriendList", &request.encode_to_vec());
    let friends = pb::GetFriendListResp::decode(answer.data).expect("a GetFriendListResp");
    assert_eq!(friends.ids, ["bob"]);
    let answer = ann.ask("g", "/v1/group/getMyGroupList", &[]);
    let groups = pb::GetMyGroupListResp::decode(answer.data).expect("a GetMyGroupListResp");
    assert_eq!(groups.ids, [demo::GROUP]);
    for number in 1..=5 {
        let message = pb::MsgData {
            conv_id: format!("group:{}", demo::GROUP),
            sender_id: "bob".into(),
            content: number.to_string().into(),
            ..Default::default()
        };
        let list = pb::SendMsgListReq { msg_data_list: vec![message], ..Default::default() };
        ann.request("s", SEND, &list.encode_to_vec());
        // The push may overtake the response.
        let mut events: Vec<i32> = Vec::new();
        for _ in 0..2 {
            let push = ann.push();
            events.push(push.event);
            if push.event == 2 {
                let response = pb::ResponseBody::decode(push.data).expect("a ResponseBody");
                assert_eq!((response.code, &*response.req_id), (0, "s"));
            }
        }
        events.sort_unstable();
        assert_eq!(events, [0, 2], "senders get their messages too");
        let push = bob.push();
        let list = pb::MsgDataList::decode(push.data).expect("a MsgDataList");
        let told = &list.msg_data_list[0];
        assert_eq!(
            (push.event, &*told.sender_id, &*told.seq),
            (0, "test123456", &*number.to_string())
        );
    }
    let ids = vec![format!("group:{}", demo::GROUP)];
    let request = pb::BatchGetConvSeqReq { conv_id_list: ids, common_req: None };
    let answer = bob.ask("q", "/v1/msg/batchGetConvSeq", &request.encode_to_vec());
    let found = pb::BatchGetConvSeqResp::decode(answer.data).expect("an answer").conv_seq_map;
    assert_eq!(found.values().next().map(|seq| &*seq.max_seq), Some("5"));
    assert_eq!(bob.ask("n", "/v1/no/such", &[]).code, 3);
}
