//! The application behind the HTTP callbacks: a small server that shows what it was asked and
//! answers what the test says.

// Each test file uses its own part.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use crate::common::PATIENCE;

/// One request and the connection that waits for its answer; dropped, that ends without one.
pub struct Request {
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    stream: TcpStream,
    next: Sender<TcpStream>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| &*header.1)
    }

    /// The gateway's end of the connection.
    pub fn peer(&self) -> std::net::SocketAddr {
        self.stream.peer_addr().expect("it is connected")
    }

    /// Answers, and keeps the connection for the next request.
    pub fn answer(mut self, status: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        // The gateway may have given up waiting.
        let _ = self.stream.write_all(&[head.as_bytes(), body].concat());
        let _ = self.next.send(self.stream);
    }
}

/// An HTTP server on a free port.
pub struct HttpServer {
    pub port: u16,
    requests: Receiver<Request>,
}

impl HttpServer {
    pub fn start() -> HttpServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (sender, requests) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                std::thread::spawn(move || serve(stream, &sender));
            }
        });
        HttpServer { port, requests }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The next request.
    pub fn request(&self) -> Request {
        self.requests.recv_timeout(PATIENCE).expect("no request came")
    }

    /// The next request, if one comes in this time.
    pub fn request_within(&self, time: Duration) -> Option<Request> {
        self.requests.recv_timeout(time).ok()
    }
}

/// Reads the requests of one connection, each after the one before is answered.
fn serve(stream: TcpStream, requests: &Sender<Request>) {
    let (next, answered) = std::sync::mpsc::channel();
    let _ = next.send(stream);
    while let Ok(stream) = answered.recv() {
        let Some(request) = read(stream, &next) else { return };
        if requests.send(request).is_err() {
            return;
        }
    }
}

fn read(stream: TcpStream, next: &Sender<TcpStream>) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut lines = lines.into_iter();
    let line = lines.next()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned())))
        .collect();
    let length = headers.iter().find(|header| header.0 == "content-length");
    let length = length.and_then(|header| header.1.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line, headers, body, stream: reader.into_inner(), next: next.clone() })
}
