//! xxim clients over raw sockets, and gateways for them.

// Each test file uses its own part.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use ringway::config::all::Config;
use ringway::config::model::{ClientProtocol, Service};
use ringway::protocols::xxim::config::XximKey;
use ringway::protocols::xxim::config::upstream::{XximMode, XximRoute, XximTarget, XximUpstream};
use ringway::protocols::xxim::wire::cipher::Cipher;
use ringway::protocols::xxim::wire::proto::{
    PushBody, RequestBody, ResponseBody, SetCxnParamsReq, SetUserParamsReq,
};
use ringway::wire::network::Network;
use ringway::wire::websocket::mask_frame;

use crate::common::{self, Client, Frame, Server};

pub const KEY_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/xxim/test-key.pem");
/// The seeds of section 3.8.
pub const KEY_SEED: &[u8] = b"9f86d081884c7d659a2feaa0c55ad015";
pub const IV_SEED: &[u8] = b"3c6e0b8a9c15224a8228b9a98ca1531d";

const BINARY: u8 = 0x82;
const PREFIXES: [&str; 4] = ["/v1/user/", "/v1/relation/", "/v1/msg/", "/v1/group/"];

/// A configuration with the test key and an upstream for the usual methods.
pub fn config(upstream: &str) -> Config {
    let mut config = common::config();
    config.xxim.crypto.private_key = Some(XximKey::File(KEY_FILE.into()));
    config.trust.trusted = vec![Network::parse("127.0.0.0/8").expect("a network")];
    config.xxim_upstreams.upstreams = vec![http(upstream)];
    let route = |prefix| XximRoute::new(prefix, XximTarget::Upstream(0), Duration::from_secs(10));
    config.xxim_upstreams.routes = PREFIXES.map(route).into();
    config
}

fn http(url: &str) -> XximUpstream {
    XximUpstream {
        name: "test".into(),
        url: url.into(),
        mode: XximMode::Raw,
        http2: false,
        grpc_generic: false,
        connections_max: 512,
        connect_timeout: Duration::from_secs(2),
        reply_bytes_max: 1 << 20,
        circuit_failures: 1000,
        circuit_pause: Duration::from_secs(1),
    }
}

/// Where xxim clients connect.
pub fn address(server: &Server) -> SocketAddr {
    let speaks = |service: &Service| match service {
        Service::Http(routes) => routes.iter().any(|route| route.protocol == ClientProtocol::Xxim),
        _ => false,
    };
    let listeners = &server.gateway().config().listeners;
    let index = listeners.iter().position(|listener| speaks(&listener.service));
    server.address(index.expect("the demo serves xxim"))
}

/// An xxim client.
pub struct Xxim {
    pub client: Client,
    pub cipher: Option<Cipher>,
}

impl Xxim {
    /// Connected; the greeting was read.
    pub fn open(server: &Server) -> Xxim {
        Xxim::open_at(address(server), "203.0.113.7")
    }

    /// The same for a client that a proxy says to be there.
    pub fn open_from(server: &Server, ip: &str) -> Xxim {
        Xxim::open_at(address(server), ip)
    }

    /// The same, wherever the gateway is.
    pub fn open_at(address: SocketAddr, ip: &str) -> Xxim {
        let headers = format!("X-Forwarded-For: {ip}\r\n");
        let mut client = Client::open_with(address, "/ws", &headers);
        assert_eq!(client.frame(), Frame { first: 0x81, payload: b"connected".to_vec() });
        Xxim { client, cipher: None }
    }

    /// Logged in as this user on this device, in plain text.
    pub fn login(server: &Server, user: &str, device: &str) -> Xxim {
        let mut client = Xxim::open(server);
        client.set_params(device);
        client.set_user(user);
        client
    }

    /// Encrypted with the seeds of section 3.8; the identity is that of E01.
    pub fn encrypted(server: &Server) -> Xxim {
        let mut client = Xxim::open(server);
        client.send(&crate::vectors::vector("E01"));
        client.cipher = Some(Cipher::new(KEY_SEED, IV_SEED));
        assert_eq!(client.receive(), crate::vectors::vector("E02p"));
        client
    }

    pub fn set_params(&mut self, device: &str) {
        let params = SetCxnParamsReq {
            package_id: device.into(),
            platform: "web".into(),
            ..SetCxnParamsReq::default()
        };
        let answer = self.ask("p", "/v1/conn/white/setCxnParams", &params.encode_to_vec());
        assert_eq!(answer.code, 0, "{answer:?}");
    }

    pub fn set_user(&mut self, user: &str) {
        let answer = self.ask("u", "/v1/conn/white/setUserParams", &user_params(user, "token"));
        assert_eq!(answer.code, 0, "{answer:?}");
    }

    /// Bytes of one message, as they are.
    pub fn send_raw(&mut self, message: &[u8]) {
        self.client.write(&mask_frame(BINARY, [1, 2, 3, 4], message));
    }

    /// One message, encrypted if there are keys.
    pub fn send(&mut self, message: &[u8]) {
        let mut message = message.to_vec();
        if let Some(cipher) = &self.cipher {
            cipher.encrypt(&mut message, 0);
        }
        self.send_raw(&message);
    }

    pub fn request(&mut self, req_id: &str, method: &str, data: &[u8]) {
        self.send(&request(req_id, method, data));
    }

    /// The next message, decrypted if there are keys. Pings are answered.
    pub fn receive(&mut self) -> Bytes {
        loop {
            let frame = self.client.frame();
            if frame.first == 0x89 {
                self.client.write(&mask_frame(0x8a, [0; 4], &frame.payload));
                continue;
            }
            assert_eq!(frame.first, BINARY, "{frame:?}");
            let mut message = frame.payload;
            if let Some(cipher) = &self.cipher {
                let len = cipher.decrypt(&mut message).expect("a message under these keys");
                message.truncate(len);
            }
            return Bytes::from(message);
        }
    }

    pub fn push(&mut self) -> PushBody {
        PushBody::decode(self.receive()).expect("a push")
    }

    /// The next response; it fails if something else comes first.
    pub fn response(&mut self) -> ResponseBody {
        let push = self.push();
        assert_eq!(push.event, 2, "{push:?}");
        ResponseBody::decode(push.data).expect("a response")
    }

    pub fn ask(&mut self, req_id: &str, method: &str, data: &[u8]) -> ResponseBody {
        self.request(req_id, method, data);
        let answer = self.response();
        assert_eq!((&*answer.req_id, &*answer.method), (req_id, method));
        answer
    }

    /// Whether the connection still works.
    pub fn keep_alive(&mut self) {
        assert_eq!(self.ask("k", "/v1/conn/keepAlive", &[]).code, 0);
    }

    /// The next frame must be this close frame.
    pub fn expect_close(&mut self, payload: &str) {
        let frame = self.client.frame();
        assert_eq!(frame.first, 0x88, "{frame:?}");
        assert_eq!(frame.payload, crate::vectors::vector(payload), "{:?}", frame.close());
        self.client.send_close(1000);
        self.client.expect_end();
    }
}

pub fn user_params(user: &str, token: &str) -> Vec<u8> {
    SetUserParamsReq { user_id: user.into(), token: token.into(), ..Default::default() }
        .encode_to_vec()
}

pub fn request(req_id: &str, method: &str, data: &[u8]) -> Vec<u8> {
    let data = Bytes::copy_from_slice(data);
    RequestBody { req_id: req_id.into(), method: method.into(), data }.encode_to_vec()
}

/// The same configuration with an admin server, for [`metric`].
pub fn observed(mut config: Config) -> Config {
    config.admin.bind = Some(([127, 0, 0, 1], 0).into());
    config
}

/// The sum of a metric over the lines of `/metrics` that contain `label`.
pub fn metric(server: &Server, name: &str, label: &str) -> f64 {
    let admin = server.gateway().admin_address().expect("it is observed");
    let mut socket = common::connect(admin);
    let request = b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    socket.write_all(request).expect("it reads");
    let mut page = String::new();
    socket.read_to_string(&mut page).expect("it answers");
    let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
