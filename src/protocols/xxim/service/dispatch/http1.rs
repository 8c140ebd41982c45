//! HTTP/1.1 to one upstream over connections that are kept alive.
//!
//! A general client spends most of the time of a small call on passing it between tasks. Here the
//! task of the call writes and reads by itself, on a connection that it takes from the pool for
//! that time. Invariants: a connection carries one request at a time and goes back only after a
//! complete reply with nothing behind it; a call that is given up closes its connection; no more
//! than `connections_max` are open. A request is never sent twice: if a kept connection turns out
//! to be closed, the call has failed, as nobody knows whether the upstream has seen it.
//! Costs: one buffer for the request, one for the reply, two system calls when all goes well.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::reply::{Malformed, Parser};
use super::result::Reply;
use super::{Failure, head};
use crate::config::model::Sidecar;
use crate::protocols::xxim::config::upstream::XximUpstream;

/// Bodies up to this size are written together with their head.
const JOINED_BYTES_MAX: usize = 64 * 1024;
/// Room for a small reply.
const READ_BYTES: usize = 4 * 1024;

/// The pool of one upstream.
#[derive(Debug)]
pub(super) struct Http1 {
    host: String,
    port: u16,
    /// Between method and identity: what is the same for every request.
    lines: String,
    /// The path of the base URL, without `/` at the end.
    base: String,
    /// Oldest first.
    idle: Mutex<VecDeque<(TcpStream, Instant)>>,
    /// Older ones are not used: the upstream may be about to close them.
    idle_timeout: Duration,
    places: Semaphore,
    connect_time_max: Duration,
    reply_bytes_max: usize,
}

impl Http1 {
    /// No connection is made before the first call. `url` is a base URL with the scheme `http`.
    pub(super) fn new(upstream: &XximUpstream, sidecar: Sidecar, url: &reqwest::Url) -> Http1 {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(80);
        let named = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Http1 {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            lines: format!(
                " HTTP/1.1\r\nHost: {named}\r\nUser-Agent: {}\r\n\
                 Content-Type: application/x-protobuf\r\nAccept: application/x-protobuf\r\n",
                concat!("ringway/", env!("CARGO_PKG_VERSION"))
            ),
            base: url.path().trim_end_matches('/').to_owned(),
            idle: Mutex::default(),
            idle_timeout: sidecar.idle_timeout,
            places: Semaphore::new(upstream.connections_max as usize),
            connect_time_max: upstream.connect_timeout,
            reply_bytes_max: upstream.reply_bytes_max as usize,
        }
    }

    /// Makes a POST. `identity` are header lines with their line ends; the method is a path.
    pub(super) async fn post(
        &self,
        method: &str,
        identity: &[u8],
        req_id: Option<&[u8]>,
        body: &Bytes,
    ) -> Result<Reply, Failure> {
        let mut request = self.head(method, identity, req_id, body.len());
        let joined = body.len() <= JOINED_BYTES_MAX;
        if joined {
            request.extend_from_slice(body);
        }
        let closed = |_| Failure::Transport("no connection is made any more".to_owned());
        let _place = self.places.acquire().await.map_err(closed)?;
        let mut stream = match self.kept() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(&request).await?;
        if !joined {
            stream.write_all(body).await?;
        }
        let mut parser = Parser::new(self.reply_bytes_max);
        let mut input = BytesMut::with_capacity(READ_BYTES);
        loop {
            let ended = stream.read_buf(&mut input).await? == 0;
            if let Some(complete) = parser.advance(&mut input, ended)? {
                if complete.reusable {
                    self.keep(stream);
                }
                return Ok(complete.reply);
            }
        }
    }

    fn head(
        &self,
        method: &str,
        identity: &[u8],
        req_id: Option<&[u8]>,
        body_len: usize,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024 + body_len.min(JOINED_BYTES_MAX));
        for part in [b"POST ".as_slice(), self.base.as_bytes(), method.as_bytes()] {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(self.lines.as_bytes());
        out.extend_from_slice(identity);
        if let Some(req_id) = req_id {
            out.extend_from_slice(b"X-Xxim-Req-Id: ");
            head::push_encoded(&mut out, head::req_id(req_id));
            out.extend_from_slice(b"\r\n");
        }
        let traceparent = head::traceparent();
        let end = format!("traceparent: {traceparent}\r\nContent-Length: {body_len}\r\n\r\n");
        out.extend_from_slice(end.as_bytes());
        out
    }

    /// A connection that was used last and that nobody has closed, as far as is known.
    fn kept(&self) -> Option<TcpStream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (stream, since) = idle.pop_back()?;
        if since.elapsed() > self.idle_timeout {
            // All others are older.
            idle.clear();
            return None;
        }
        let mut byte = [0];
        match stream.try_read(&mut byte) {
            // Open and silent, as it should be.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(stream),
            _ => {
                // Whoever closed this one has closed the others, or is about to.
                idle.clear();
                None
            }
        }
    }

    fn keep(&self, stream: TcpStream) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while idle.front().is_some_and(|(_, since)| now - *since > self.idle_timeout) {
            idle.pop_front();
        }
        idle.push_back((stream, now));
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let connecting = TcpStream::connect((&*self.host, self.port));
        let stream = match tokio::time::timeout(self.connect_time_max, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failure::Unreachable(error.to_string())),
            Err(_) => return Err(Failure::Unreachable("no answer to connecting".to_owned())),
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Transport(error.to_string())
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Failure {
        match malformed {
            Malformed::Ended => Failure::Transport(malformed.to_string()),
            Malformed::Http | Malformed::Head | Malformed::Body(_) => {
                Failure::Nonsense(malformed.to_string())
            }
        }
    }
}
