//! The worker's WebSocket: text messages in and out, pings answered.
//!
//! Invariants: a frame is stored only as far as it has arrived, and none is longer than
//! [`FRAME_BYTES_MAX`]. Costs: one read per up to 64 KiB of frames, one write per batch.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::demo::link::invalid;
use crate::wire::websocket::mask_frame;

/// Bytes of a message from the gateway.
const FRAME_BYTES_MAX: usize = 64 << 20;
const HEAD_BYTES_MAX: usize = 16 << 10;
const READ_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// FIN with the opcodes of text, pong, and of what the gateway sends.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A connection that was upgraded.
pub(super) struct Socket {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Socket {
    /// Connects and upgrades.
    pub async fn connect(address: SocketAddr, path: &str) -> io::Result<Socket> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let mut socket = Socket { stream, buffer: BytesMut::new() };
        timeout(CONNECT_TIMEOUT, socket.upgrade(address, path)).await??;
        Ok(socket)
    }

    async fn upgrade(&mut self, address: SocketAddr, path: &str) -> io::Result<()> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).await?;
        loop {
            let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.buffer.split_to(end + 4);
                let accepted = head.starts_with(b"HTTP/1.1 101 ");
                let line = head[..].split(|byte| *byte == b'\r').next().unwrap_or_default();
                let refused = || invalid(String::from_utf8_lossy(line).into_owned());
                return accepted.then_some(()).ok_or_else(refused);
            }
            if self.buffer.len() > HEAD_BYTES_MAX || !self.fill().await? {
                return Err(invalid("the gateway did not answer the upgrade".to_owned()));
            }
        }
    }

    /// Sends text messages with one write.
    pub async fn send(&mut self, texts: &[String]) -> io::Result<()> {
        let mask = fastrand::u32(..).to_ne_bytes();
        let frames: Vec<u8> =
            texts.iter().flat_map(|text| mask_frame(TEXT, mask, text.as_bytes())).collect();
        self.stream.write_all(&frames).await
    }

    /// Waits for messages and hands out those that have arrived. False: the gateway has closed.
    pub async fn receive(&mut self, mut each: impl FnMut(&str)) -> io::Result<bool> {
        if !self.fill().await? {
            return Ok(false);
        }
        while let Some((first, payload)) = self.frame()? {
            match first {
                TEXT => each(&String::from_utf8_lossy(&payload)),
                PING => {
                    let mask = fastrand::u32(..).to_ne_bytes();
                    self.stream.write_all(&mask_frame(PONG, mask, &payload)).await?;
                }
                CLOSE => return Ok(false),
                _ => {}
            }
        }
        Ok(true)
    }

    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// The next frame that has arrived completely: first byte and payload.
    fn frame(&mut self) -> io::Result<Option<(u8, BytesMut)>> {
        let (header, length) = match self.buffer[..] {
            [_, length @ 0..126, ..] => (2, u64::from(length)),
            [_, 126, a, b, ..] => (4, u64::from(u16::from_be_bytes([a, b]))),
            [_, 127, a, b, c, d, e, f, g, h, ..] => {
                (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
            [_, 128..=255, ..] => {
                return Err(invalid("the gateway sent a masked frame".to_owned()));
            }
            _ => return Ok(None),
        };
        if length > FRAME_BYTES_MAX as u64 {
            return Err(invalid(format!("the gateway announced a frame of {length} bytes")));
        }
        if self.buffer.len() < header + length as usize {
            return Ok(None);
        }
        let first = self.buffer[0];
        self.buffer.advance(header);
        Ok(Some((first, self.buffer.split_to(length as usize))))
    }
}
