//! The push service of xxim backends, with shards that are nothing but mailboxes: requests as
//! specified reach every shard, answers are put together, and nobody without the secret is heard
//! (xxim section 6).

#[path = "xxim_push/http.rs"]
mod http;
mod sidecar;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringway::config;
use ringway::config::model::TlsFiles;
use ringway::hub::ConnId;
use ringway::lists::letters::Mail;
use ringway::protocols::xxim;
use ringway::protocols::xxim::config::push::XximPushService;
use ringway::protocols::xxim::config::upstream::XximUpstreams;
use ringway::protocols::xxim::letters::{Letter, PushFilter, PushRequest, PushResult, PushedConn};
use ringway::protocols::xxim::service::grpc::conn_service_client::ConnServiceClient;
use ringway::protocols::xxim::wire::Identity as Client;
use ringway::protocols::xxim::wire::proto as pb;
use ringway::sidecar::SidecarSettings;
use ringway::wire::network::Network;
use sidecar::server::runtime;
use sidecar::*;
use tokio::runtime::Runtime;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request};

const SECRET: &str = "0123456789abcdef";

fn service() -> XximPushService {
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

fn start(service: XximPushService) -> (Sidecar, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let upstreams = XximUpstreams { push: Some(service), ..XximUpstreams::default() };
    let pod = [192, 0, 2, 7].into();
    let push = Some((listener, None));
    let xxim = xxim::service::Settings { upstreams, push, pod, ..Default::default() };
    let settings = SidecarSettings { xxim, ..settings() };
    (Sidecar::start(settings), address)
}

fn conn(user: &str) -> PushedConn {
    let identity = Client {
        user_id: user.into(),
        token: "secret-token".into(),
        platform: "ios".into(),
        device_id: "d1".into(),
        accepted_unix_ms: 1_700_000_000_123,
        ..Client::default()
    };
    PushedConn { conn: ConnId::new(0, 1, 1), identity: Arc::new(identity) }
}

/// Answers the next work of both shards: the first has these connections, the second none.
fn shards(sidecar: &Sidecar, success: &[&str], failed: &[&str]) -> Arc<PushRequest> {
    let mut seen = None;
    for shard in 0..2 {
        let Mail::Xxim(Letter::Push { work, reply }) = sidecar.mail(shard) else {
            panic!("other mail")
        };
        let part = |users: &[&str]| users.iter().map(|user| conn(user)).collect();
        let pushed = match shard {
            0 => PushResult { success: part(success), failed: part(failed) },
            _ => PushResult::default(),
        };
        reply.send(pushed).expect("somebody waits");
        seen = Some(work);
    }
    seen.expect("two shards")
}

fn to(users: &[&str]) -> Option<pb::GetUserConnReq> {
    let user_ids = users.iter().map(|user| (*user).to_owned()).collect();
    Some(pb::GetUserConnReq { user_ids, ..Default::default() })
}

fn send_req(event: i32, filter: Option<pb::GetUserConnReq>) -> pb::SendMsgReq {
    let data = Bytes::from_static(b"data");
    pb::SendMsgReq { get_user_conn_req: filter, event, data }
}

#[test]
fn a_grpc_client_can_push_look_and_kick() {
    let (sidecar, address) = start(service());
    let runtime = runtime();
    let mut client = connect(&runtime, address);
    // V22: user and device.
    let filter = pb::GetUserConnReq {
        user_ids: vec!["test123456".into(), "gone".into()],
        platforms: Vec::new(),
        devices: vec!["xxxx".into()],
    };
    let request = send_req(1, Some(filter));
    let call = runtime.spawn({
        let mut client = client.clone();
        async move { client.send_msg(request).await }
    });
    let work = shards(&sidecar, &["test123456"], &[]);
    let PushRequest::Send { filter, event, data } = &*work else { panic!("{work:?}") };
    assert_eq!((*event, &**data), (1, b"data".as_slice()));
    assert_eq!(filter.users, ["test123456".into(), "gone".into()]);
    assert_eq!((filter.platforms.len(), &*filter.devices), (0, &["xxxx".into()][..]));
    let answer = runtime.block_on(call).expect("no panic").expect("OK").into_inner();
    let resp = answer.common_resp.expect("always");
    assert_eq!((resp.code, resp.msg.as_deref()), (0, Some("ok")));
    let reached = &answer.success_conn_params[0];
    assert_eq!((&*reached.user_id, &*reached.device_id), ("test123456", "d1"));
    assert_eq!((&*reached.token, reached.timestamp), ("", 0), "secrets stay here");
    assert_eq!(reached.pod_ip, "192.0.2.7");
    assert_eq!(answer.failed_conn_params.len(), 1);
    assert_eq!(answer.failed_conn_params[0].user_id, "gone");

    let call = runtime.spawn({
        let mut client = client.clone();
        async move { client.get_user_conn(to(&["a", "b"]).expect("some")).await }
    });
    let work = shards(&sidecar, &["a", "a"], &[]);
    assert!(matches!(&*work, PushRequest::Get { .. }));
    let found = runtime.block_on(call).expect("no panic").expect("OK").into_inner();
    assert_eq!(found.conn_params.len(), 2);
    assert_eq!(found.conn_params[0].timestamp, 1_700_000_000_123);

    let kick = pb::KickUserConnReq { get_user_conn_req: to(&["a"]) };
    let call = runtime.spawn({
        let mut client = client.clone();
        async move { client.kick_user_conn(kick).await }
    });
    let work = shards(&sidecar, &["a"], &[]);
    assert!(matches!(&*work, PushRequest::Kick { filter } if *filter.users == ["a".into()]));
    runtime.block_on(call).expect("no panic").expect("OK");
    let alive = runtime.block_on(client.keep_alive(pb::KeepAliveReq::default()));
    assert_eq!(alive.expect("OK").into_inner(), pb::KeepAliveResp::default());
}

#[test]
fn what_must_not_be_asked_for_is_refused() {
    let (sidecar, address) = start(service());
    let runtime = runtime();
    let mut client = connect(&runtime, address);
    let mut send =
        |request| runtime.block_on(client.send_msg(request)).expect_err("refused").code();
    for event in [2, 3, -1] {
        assert_eq!(send(send_req(event, to(&["a"]))), Code::InvalidArgument, "event {event}");
    }
    assert_eq!(send(send_req(0, None)), Code::InvalidArgument, "no filter");
    assert_eq!(send(send_req(0, to(&[]))), Code::InvalidArgument, "everybody");
    let mut large = send_req(0, to(&["a"]));
    large.data = vec![0; 2 << 20].into();
    assert_eq!(send(large), Code::OutOfRange);
    let kick = pb::KickUserConnReq { get_user_conn_req: to(&[]) };
    let refused = runtime.block_on(client.kick_user_conn(kick)).expect_err("everybody");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(sidecar.mailboxes.iter().all(|mailbox| mailbox.is_empty()), "no shard is asked");
}

#[test]
fn everybody_can_be_meant_where_that_is_allowed_and_other_events_pass() {
    let (sidecar, address) = start(XximPushService { allow_broadcast: true, ..service() });
    let runtime = runtime();
    let client = connect(&runtime, address);
    for event in [0, 1, 4, i32::MAX] {
        let mut client = client.clone();
        let call = runtime.spawn(async move { client.send_msg(send_req(event, to(&[]))).await });
        let work = shards(&sidecar, &["a", "b"], &["a", "c", "c"]);
        let PushRequest::Send { filter, event: told, .. } = &*work else { panic!("{work:?}") };
        assert_eq!((filter, *told), (&PushFilter::default(), event));
        let answer = runtime.block_on(call).expect("no panic").expect("OK").into_inner();
        assert_eq!(answer.success_conn_params.len(), 2);
        let failed: Vec<_> = answer.failed_conn_params.iter().map(|p| &*p.user_id).collect();
        assert_eq!(failed, ["c"], "once, and not who was reached");
    }
}

#[test]
fn only_who_shows_the_secret_is_heard() {
    let (sidecar, address) = start(XximPushService { secret: SECRET.into(), ..service() });
    let runtime = runtime();
    let mut client = connect(&runtime, address);
    for shown in [None, Some("Bearer"), Some("Bearer 0123456789abcdeX"), Some(SECRET)] {
        let mut request = Request::new(send_req(0, to(&["a"])));
        if let Some(shown) = shown {
            request.metadata_mut().insert("authorization", shown.parse().expect("ASCII"));
        }
        let refused = runtime.block_on(client.send_msg(request)).expect_err("refused");
        assert_eq!(refused.code(), Code::Unauthenticated, "{shown:?}");
    }
    let http = reqwest_client();
    let url = format!("http://{address}");
    let post = |secret: Option<&str>| {
        let request = http.post(format!("{url}/v1/internal/conn/sendMsg"));
        let request = request.body(send_req(0, to(&["a"])).encode_to_vec());
        let request = match secret {
            Some(secret) => request.header("Authorization", format!("Bearer {secret}")),
            None => request,
        };
        runtime.spawn(async move {
            let response = request.send().await.expect("an answer");
            (response.status().as_u16(), response.bytes().await.expect("a body"))
        })
    };
    let (status, body) = runtime.block_on(post(None)).expect("no panic");
    assert_eq!((status, pb::CommonResp::decode(body).expect("protobuf").code), (401, 4));
    assert!(sidecar.mailboxes.iter().all(|mailbox| mailbox.is_empty()), "no shard was asked");
    let call = post(Some(SECRET));
    shards(&sidecar, &["a"], &[]);
    let (status, body) = runtime.block_on(call).expect("no panic");
    let answer = pb::SendMsgResp::decode(body).expect("protobuf");
    assert_eq!((status, answer.success_conn_params.len()), (200, 1));
    let mut request = Request::new(send_req(0, to(&["a"])));
    let shown = format!("Bearer {SECRET}");
    request.metadata_mut().insert("authorization", shown.parse().expect("ASCII"));
    let call = runtime.spawn(async move { client.send_msg(request).await });
    shards(&sidecar, &["a"], &[]);
    runtime.block_on(call).expect("no panic").expect("OK");
}

/// Posts a keepAlive from this address of loopback; gives the status.
fn knock(runtime: &tokio::runtime::Runtime, service: SocketAddr, from: &str) -> u16 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let from: std::net::IpAddr = from.parse().expect("an address");
    let http = reqwest::Client::builder().tls_certs_only([]).local_address(from).build();
    let request =
        http.expect("a client").post(format!("http://{service}/v1/internal/conn/keepAlive"));
    // What a client says of itself does not count.
    let request = request.header("X-Forwarded-For", "127.0.0.2").header("X-Real-IP", "127.0.0.2");
    let answer = runtime.block_on(async { request.send().await.expect("an answer") });
    answer.status().as_u16()
}

#[test]
fn addresses_that_are_listed_need_no_secret_and_all_others_do() {
    let allow_from = ["127.0.0.2", "127.0.1.0/24"];
    let allow_from: Vec<_> =
        allow_from.iter().map(|text| Network::parse(text).expect("a network")).collect();
    for secret in [SECRET, ""] {
        let allow_from = allow_from.clone();
        let service = XximPushService { secret: secret.into(), allow_from, ..service() };
        let (_sidecar, address) = start(service);
        let runtime = runtime();
        assert_eq!(knock(&runtime, address, "127.0.0.2"), 200, "listed");
        assert_eq!(knock(&runtime, address, "127.0.1.77"), 200, "in a listed network");
        assert_eq!(knock(&runtime, address, "127.0.0.1"), 401, "secret {secret:?}");
        // As the original's imService does: gRPC in plain text, without metadata.
        let mut client = connect(&runtime, address);
        let keep_alive = client.keep_alive(pb::KeepAliveReq::default());
        let refused = runtime.block_on(keep_alive).expect_err("not listed");
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    let allow_from = vec![Network::parse("127.0.0.1").expect("an address")];
    let (_sidecar, address) = start(XximPushService { allow_from, ..service() });
    let runtime = runtime();
    let mut client = connect(&runtime, address);
    runtime.block_on(client.keep_alive(pb::KeepAliveReq::default())).expect("listed");
}

/// A push service outside of loopback needs a secret, certificates, or networks; not all networks.
#[test]
fn a_push_service_can_be_protected_by_networks() {
    let service = |allow_from: &str| {
        let listener = "[[listener]]\nbind = \"127.0.0.1:6701\"\nprotocol = \"xxim-tcp\"\n";
        format!("{listener}[xxim.push]\nbind = \"0.0.0.0:6700\"\nallow_from = [{allow_from}]\n")
    };
    let loaded = config::all::from_text(&service("\"10.0.0.0/8\", \"fd00::/8\""), "test")
        .expect("protected");
    let push = loaded.config.xxim_upstreams.push.expect("a push service");
    assert!(push.allow_from.iter().any(|network| network.contains([10, 1, 2, 3].into())));
    for (allow_from, says) in [
        ("", "xxim.push.bind"),
        ("\"10.0.0/8\"", "xxim.push.allow_from"),
        ("\"0.0.0.0/0\"", "everybody"),
        ("\"::/0\"", "everybody"),
    ] {
        let error =
            config::all::from_text(&service(allow_from), "test").expect_err(allow_from).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_look_at_everybody_is_always_allowed() {
    let (sidecar, address) = start(service());
    let runtime = runtime();
    let mut client = connect(&runtime, address);
    let call =
        runtime.spawn(async move { client.get_user_conn(pb::GetUserConnReq::default()).await });
    let work = shards(&sidecar, &["a", "b"], &[]);
    let PushRequest::Get { filter } = &*work else { panic!("{work:?}") };
    assert_eq!(*filter, PushFilter::default());
    let found = runtime.block_on(call).expect("no panic").expect("OK").into_inner();
    assert_eq!(found.conn_params.len(), 2);
}

#[test]
fn the_same_over_http() {
    let (sidecar, address) = start(service());
    let runtime = runtime();
    let http = reqwest_client();
    let post = |method: &str, body: Vec<u8>| {
        let url = format!("http://{address}/v1/internal/conn/{method}");
        let request = http.post(url).body(body);
        runtime.spawn(async move {
            let response = request.send().await.expect("an answer");
            (response.status().as_u16(), response.bytes().await.expect("a body"))
        })
    };
    let call = post("getUserConn", to(&["a"]).expect("some").encode_to_vec());
    shards(&sidecar, &["a"], &[]);
    let (status, body) = runtime.block_on(call).expect("no panic");
    let found = pb::GetUserConnResp::decode(body).expect("protobuf");
    assert_eq!((status, &*found.conn_params[0].user_id), (200, "a"));
    let kick = pb::KickUserConnReq { get_user_conn_req: to(&["a"]) };
    let call = post("kickUserConn", kick.encode_to_vec());
    shards(&sidecar, &["a"], &[]);
    assert_eq!(runtime.block_on(call).expect("no panic").0, 200);
    for (method, body, status) in [
        ("keepAlive", Vec::new(), 200),
        ("sendMsg", send_req(2, to(&["a"])).encode_to_vec(), 400),
        ("sendMsg", b"\xff".to_vec(), 400),
        ("kickUserConn", Vec::new(), 400),
        ("sendMsg", vec![0; 2 << 20], 413),
    ] {
        let (told, _) = runtime.block_on(post(method, body)).expect("no panic");
        assert_eq!(told, status, "{method}");
    }
}

#[test]
fn pushes_reach_every_shard_in_the_order_in_which_they_were_accepted() {
    let (sidecar, address) = start(service());
    let runtime = runtime();
    let mut client = connect(&runtime, address);
    let calls = runtime.spawn(async move {
        for number in 0..50_u8 {
            let mut request = send_req(0, to(&["a"]));
            request.data = Bytes::copy_from_slice(&[number]);
            client.send_msg(request).await.expect("OK");
        }
    });
    for number in 0..50 {
        let work = shards(&sidecar, &[], &[]);
        let PushRequest::Send { data, .. } = &*work else { panic!("{work:?}") };
        assert_eq!(&**data, [number]);
    }
    runtime.block_on(calls).expect("no panic");
}

const KEEP_ALIVE: &str =
    "POST /v1/internal/conn/keepAlive HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";

/// The first bytes of what the service has to say to these.
fn answer_to(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_fin_behind_the_request_changes_nothing() {
    let (_sidecar, address) = start(service());
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
        stream.write_all(KEEP_ALIVE.as_bytes()).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer and its end");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
}

/// As many as there are places, of each sort: silent ones, halves of heads, of HTTP/2 and of
/// bodies, and such as have been answered and stay.
#[test]
fn silent_peers_keep_nobody_from_pushing() {
    let (_sidecar, address) = start(service());
    let stay = KEEP_ALIVE;
    let half = KEEP_ALIVE.replace("Length: 0", "Length: 100") + "ab";
    for sent in ["", "P", "POST /v1/internal/conn", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &half, stay]
    {
        let places = ringway::protocols::xxim::config::push::push_connections_max(
            1024,
            ringway::config::raise_nofile(),
        );
        let silent: Vec<TcpStream> = (0..places)
            .map(|_| {
                let mut stream = TcpStream::connect(address).expect("it listens");
                stream.write_all(sent.as_bytes()).expect("nobody has to go yet");
                stream
            })
            .collect();
        for _ in 0..3 {
            assert_eq!(answer_to(address, KEEP_ALIVE), "HTTP/1.1 200", "beside {sent:?}");
        }
        drop(silent);
    }
}

/// What a peer without the secret sends after a head is not waited for.
#[test]
fn without_the_secret_no_body_is_waited_for() {
    let (_sidecar, address) = start(XximPushService { secret: SECRET.into(), ..service() });
    let half = KEEP_ALIVE.replace("Length: 0", "Length: 100") + "ab";
    assert_eq!(answer_to(address, &half), "HTTP/1.1 401");
}

/// The spans of time are constants, so this waits for them.
#[test]
fn who_is_slow_is_closed_in_time() {
    let (_sidecar, address) = start(service());
    let half = KEEP_ALIVE.replace("Length: 0", "Length: 100") + "ab";
    let sent =
        ["", "P", "POST /v1", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &half];
    let slow = sent.map(|sent| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
        stream.write_all(sent.as_bytes()).expect("it reads");
        (sent, stream)
    });
    for (sent, mut stream) in slow {
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{sent:?}"),
        }
    }
}

fn connect(runtime: &Runtime, address: SocketAddr) -> ConnServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    ConnServiceClient::new(runtime.block_on(endpoint.connect()).expect("it listens"))
}

fn reqwest_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tls_certs_only([]).build().expect("a client")
}

/// Files of an authority, a server and the identity of a backend.
fn certificates_of(folder: &std::path::Path) -> (TlsFiles, String, (String, String)) {
    let authority_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).expect("a valid key").pem();
    let issuer = Issuer::new(params, authority_key);
    let made = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (params.signed_by(&key, &issuer).expect("an authority").pem(), key.serialize_pem())
    };
    let (cert, key) = made("localhost");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("ours");
        path
    };
    let files = TlsFiles {
        cert: write("cert.pem", &cert),
        key: write("key.pem", &key),
        client_ca: Some(write("ca.pem", &authority)),
    };
    (files, authority, made("backend"))
}

#[test]
fn with_mutual_tls_only_backends_with_a_certificate_are_heard() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, authority, (cert, key)) = certificates_of(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let tls = ringway::tls_files::load(&files, &[b"h2", b"http/1.1"]).expect("valid files");
    let upstreams = XximUpstreams { push: Some(service()), ..XximUpstreams::default() };
    let (certificates, tls) = tokio::sync::watch::channel(tls);
    let push = Some((listener, Some(tls)));
    let xxim = xxim::service::Settings { upstreams, push, ..Default::default() };
    let settings = SidecarSettings { xxim, ..settings() };
    let sidecar = Sidecar::start(settings);
    let runtime = runtime();
    let endpoint = |identity: Option<Identity>| {
        let trust = Certificate::from_pem(&authority);
        let tls = ClientTlsConfig::new().ca_certificate(trust).domain_name("localhost");
        let tls = match identity {
            Some(identity) => tls.identity(identity),
            None => tls,
        };
        let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).expect("a URL");
        endpoint.tls_config(tls).expect("valid").connect_lazy()
    };
    let _context = runtime.enter();
    let mut stranger = ConnServiceClient::new(endpoint(None));
    let refused = runtime.block_on(stranger.send_msg(send_req(0, to(&["a"]))));
    assert!(refused.is_err(), "{refused:?}");
    assert!(sidecar.mailboxes.iter().all(|mailbox| mailbox.is_empty()), "no shard was asked");
    let mut backend = ConnServiceClient::new(endpoint(Some(Identity::from_pem(cert, key))));
    let call = runtime.spawn(async move { backend.send_msg(send_req(0, to(&["a"]))).await });
    shards(&sidecar, &["a"], &[]);
    let answer = runtime.block_on(call).expect("no panic").expect("OK").into_inner();
    assert_eq!(answer.success_conn_params.len(), 1);
    // Whoever comes after a change meets the new certificate, which another authority has signed.
    let other = tempfile::tempdir().expect("a folder");
    let (files, authority, (cert, key)) = certificates_of(other.path());
    let new = ringway::tls_files::load(&files, &[b"h2", b"http/1.1"]).expect("valid files");
    certificates.send_replace(new);
    let trust = Certificate::from_pem(&authority);
    let tls = ClientTlsConfig::new().ca_certificate(trust).domain_name("localhost");
    let tls = tls.identity(Identity::from_pem(cert, key));
    let url = Endpoint::from_shared(format!("https://localhost:{port}")).expect("a URL");
    let mut backend = ConnServiceClient::new(url.tls_config(tls).expect("valid").connect_lazy());
    let call = runtime.spawn(async move { backend.send_msg(send_req(0, to(&["a"]))).await });
    shards(&sidecar, &["a"], &[]);
    runtime.block_on(call).expect("no panic").expect("OK");
}
