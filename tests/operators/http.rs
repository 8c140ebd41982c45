//! Requests to the admin interface, over a port or a socket in the file system.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use ringway::config::all::Config;
use ringway::config::model::{ClientProtocol, Service};
use serde_json::Value;

use crate::common::*;

/// The configuration of the tests, with an admin server on a free port.
pub fn configured(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    config.admin.bind = Some(([127, 0, 0, 1], 0).into());
    change(&mut config);
    config
}

pub fn server_with(change: impl FnOnce(&mut Config)) -> Server {
    Server::start(configured(change))
}

pub fn server() -> Server {
    server_with(|_| {})
}

/// A listener that has clients of a protocol, and their path there.
pub fn listener_of(server: &Server, protocol: &str) -> (SocketAddr, String) {
    let is = |of: ClientProtocol| match protocol {
        "xxim" => of == ClientProtocol::Xxim,
        "im" => of == ClientProtocol::Im,
        _ => matches!(of, ClientProtocol::Connmix { .. }),
    };
    let listeners = server.gateway().config().listeners.iter().enumerate();
    let mut found = listeners.filter_map(|(number, listener)| match &listener.service {
        Service::Http(routes) => {
            let route = routes.iter().find(|route| is(route.protocol))?;
            Some((server.address(number), route.path.clone()))
        }
        _ => None,
    });
    found.next().unwrap_or_else(|| panic!("the demo has no clients of {protocol}"))
}

/// A way to the admin server.
pub enum Door {
    Port(SocketAddr),
    Socket(PathBuf),
}

impl Door {
    pub fn of(server: &Server) -> Door {
        let mut address = server.gateway().admin_address().expect("an admin server");
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        Door::Port(address)
    }

    /// One request as it is; the whole answer.
    pub fn exchange(&self, request: &[u8]) -> String {
        let mut answer = Vec::new();
        match self {
            Door::Port(address) => {
                let mut stream = TcpStream::connect(address).expect("it listens");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                stream.write_all(request).expect("it reads");
                stream.read_to_end(&mut answer).expect("an answer");
            }
            Door::Socket(path) => {
                let mut stream = UnixStream::connect(path).expect("it listens");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                stream.write_all(request).expect("it reads");
                stream.read_to_end(&mut answer).expect("an answer");
            }
        }
        String::from_utf8(answer).expect("UTF-8")
    }

    /// Status and body of the answer to a request with these further header lines.
    pub fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let answer = self.exchange(request.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect(head), body.to_owned())
    }

    pub fn page(&self, path: &str) -> (u16, String) {
        self.send("GET", path, "", "")
    }

    /// A request to the interface.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.send(method, &format!("/api/v1{path}"), "", body);
        (status, serde_json::from_str(&body).expect(&body))
    }

    /// The answer to a request that only reads.
    pub fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}
