//! A gateway with all its HTTP ports, and raw exchanges with them.

use std::net::SocketAddr;

use ringway::config::model::{ClientProtocol, Service};

use crate::common::{self, Client, Server};

/// One port, and where its WebSocket is.
pub struct Port {
    pub name: &'static str,
    pub address: SocketAddr,
    pub path: &'static str,
}

impl Port {
    /// Whether answers are the bytes of netsvr's table.
    pub fn is_exact(&self) -> bool {
        self.name == "netsvr"
    }

    /// Whether requests are served behind one another.
    pub fn is_kept(&self) -> bool {
        matches!(self.name, "xxim" | "im" | "api")
    }

    /// Sends bytes; all that comes until the gateway closes.
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = Client::tcp(self.address);
        client.write(bytes.as_ref());
        String::from_utf8(client.rest()).expect("text")
    }

    /// The status of the first answer to these bytes, which must not end with the connection.
    pub fn status(&self, bytes: impl AsRef<[u8]>) -> u16 {
        let mut client = Client::tcp(self.address);
        client.write(bytes.as_ref());
        status(&client.head())
    }

    /// A handshake with these header lines, each with its end.
    pub fn handshake(&self, lines: &str) -> String {
        common::upgrade_request(self.path, lines)
    }

    /// Sends bytes that must be refused with this status; the connection ends.
    pub fn refuses(&self, bytes: impl AsRef<[u8]>, expected: u16) {
        let bytes = bytes.as_ref();
        let what = format!("{}: {:?}", self.name, String::from_utf8_lossy(bytes));
        let answer = self.ask(bytes);
        assert!(!answer.is_empty(), "{what}: no answer");
        assert_eq!(status(&answer), expected, "{what}: {answer}");
        assert!(closes(&answer), "{what}: {answer}");
    }
}

pub fn status(answer: &str) -> u16 {
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {answer:?}"))
}

/// Whether the head of an answer says that the connection ends.
pub fn closes(answer: &str) -> bool {
    value(answer, "Connection").is_some_and(|value| value.split(", ").any(|word| word == "close"))
}

/// The value of a header line of an answer.
pub fn value<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|line| line.0 == name).map(|line| line.1)
}

/// A gateway, and every port of it that speaks HTTP.
pub fn start() -> (Server, Vec<Port>) {
    let mut config = common::config();
    config.xxim_upstreams.http_api = true;
    let services: Vec<Service> =
        config.listeners.iter().map(|listener| listener.service.clone()).collect();
    let server = Server::start(config);
    let find = |wanted: &dyn Fn(&Service) -> bool| {
        let number = services.iter().position(wanted).expect("the demo serves it");
        server.address(number)
    };
    let clients = |wanted: fn(&ClientProtocol) -> bool| {
        find(&|service: &Service| match service {
            Service::Http(routes) => routes.iter().any(|route| wanted(&route.protocol)),
            _ => false,
        })
    };
    let port = |name, path, address| Port { name, address, path };
    let ports = vec![
        port("netsvr", "/netsvr", clients(|it| matches!(it, ClientProtocol::Netsvr))),
        port("connmix", "/chat", clients(|it| matches!(it, ClientProtocol::Connmix { .. }))),
        port("xxim", "/ws", clients(|it| matches!(it, ClientProtocol::Xxim))),
        port("im", "/im", clients(|it| matches!(it, ClientProtocol::Im))),
        port("api", "/ws/v1", find(&|service| *service == Service::ConnmixApi)),
    ];
    (server, ports)
}
