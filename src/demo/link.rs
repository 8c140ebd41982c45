//! The two TCP connections of a business process, as an SDK keeps them: frames in, frames out.
//!
//! Invariants: a frame that is announced is stored only as far as it has arrived; a frame that the
//! gateway would refuse for its size is never written.
//!
//! Costs: one read per up to 64 KiB of frames, one write per batch of frames; the body of an
//! incoming frame is a slice of the receive buffer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::wire::worker::Cmd;

/// Bytes after the length field that the gateway takes by default (`ReceivePackLimit`).
pub(super) const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes after the length field that are accepted from the gateway; a list of all connections of a
/// large gateway is long.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection to the gateway. The halves are separate so that reading and writing can be
/// awaited at the same time.
pub(super) struct Link {
    pub incoming: Incoming,
    pub outgoing: Outgoing,
}

impl Link {
    pub async fn connect(address: SocketAddr) -> io::Result<Link> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Link {
            incoming: Incoming { half: reader, buffer: BytesMut::new() },
            outgoing: Outgoing { half: writer, buffer: BytesMut::new() },
        })
    }
}

pub(super) struct Incoming {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

impl Incoming {
    /// The next frame that has arrived completely: its command number and its message.
    pub fn frame(&mut self) -> io::Result<Option<(u32, Bytes)>> {
        let Some(&head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(head) as usize;
        if !(4..=ANSWER_BYTES_MAX).contains(&length) {
            return Err(invalid(format!("the gateway announced a frame of {length} bytes")));
        }
        if self.buffer.len() - 4 < length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut frame = self.buffer.split_to(length).freeze();
        Ok(Some((frame.get_u32(), frame)))
    }

    /// Waits for more bytes. Nothing is lost if the wait is abandoned.
    ///
    /// # Errors
    /// `UnexpectedEof` when the gateway has closed the connection.
    pub async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(READ_BYTES);
        match self.half.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

pub(super) struct Outgoing {
    half: OwnedWriteHalf,
    pub buffer: BytesMut,
}

impl Outgoing {
    /// Writes some of what waits. Nothing is lost or written twice if the wait is abandoned.
    pub async fn flush_some(&mut self) -> io::Result<()> {
        match self.half.write_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(()),
        }
    }

    /// Queues a heartbeat (netsvr section 3.2), unless bytes wait already: those show life as well.
    pub fn beat(&mut self, text: &[u8]) {
        if self.buffer.is_empty() {
            self.buffer.put_u32(text.len() as u32);
            self.buffer.put_slice(text);
        }
    }
}

/// Appends the frame of a command. False, and nothing appended, if the gateway would refuse it.
#[must_use]
pub(super) fn put(out: &mut BytesMut, cmd: Cmd, message: &impl Message) -> bool {
    let length = message.encoded_len().saturating_add(4);
    if length > FRAME_BYTES_MAX {
        return false;
    }
    out.reserve(4 + length);
    out.put_u32(length as u32);
    out.put_u32(cmd as u32);
    message.encode_raw(out);
    true
}

pub(super) fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
