//! The server side of one TLS connection, sans-io: bytes of the socket in, plaintext out, and back.
//!
//! Built on the unbuffered interface of rustls, because it holds no buffer while nothing happens:
//! an idle connection costs 3.3 kB of heap with everything (8 blocks; TLS 1.2 and 1.3, any cipher;
//! a counting allocator, after the handshake and one message each way, without client certificate).
//! The buffered interface keeps 4 KiB more.
//!
//! Invariants:
//! * rustls remembers offsets into the input that it did not discard yet and panics on a slice that
//!   ends before them. So it always gets all of `incoming`, and an empty slice only while it has
//!   something to send, which it hands over before it looks at input.
//! * When a method returns, everything that rustls wants to send is in `outgoing`, in order.
//! * After an error rustls is asked for the alert and for nothing else: it would take the same
//!   input again. After our close_notify it gets no input: rustls asserts that it sends no second
//!   alert.
//!
//! Costs: an input is copied once, to be decrypted in place, and rustls allocates once per record
//! in each direction. Between calls `incoming` holds less than a record, during the handshake up to
//! `INCOMING_BYTES_MAX`; `outgoing` what [`Tls::output`] did not take yet.

use std::mem;
use std::sync::Arc;

pub use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};

/// Bytes of unfinished records and handshake messages that may wait for their end. The same as in
/// the buffered interface of rustls; the certificate chain of a client is what needs most.
const INCOMING_BYTES_MAX: usize = 0xffff;
/// Plaintext bytes of a record at the most (RFC 8446 section 5.1).
const RECORD_PLAINTEXT_MAX: usize = 16_384;
/// Bytes that encryption adds to a record at the most: header, explicit nonce, content type, tag.
const RECORD_OVERHEAD_MAX: usize = 32;

/// The server side of one TLS connection. Large: its owner boxes it.
pub struct Tls {
    connection: UnbufferedServerConnection,
    /// The beginning of a record or handshake message whose end has not arrived.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    stage: Stage,
    peer_closed: bool,
}

// Exists once per connection; nearly all of it is the connection of rustls.
const _: () = assert!(size_of::<Tls>() <= 1280);

/// Why a connection cannot go on. Its owner sends what [`Tls::output`] has left and closes it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer broke the protocol, was refused, or gave up with an alert.
    #[error("TLS: {0}")]
    Protocol(#[from] rustls::Error),
    /// The peer does not come to the end of a handshake message.
    #[error("TLS: handshake message of more than {INCOMING_BYTES_MAX} bytes")]
    HandshakeTooLong,
    /// The configuration allows 0-RTT data, which can be replayed.
    #[error("TLS: early data is not supported")]
    EarlyData,
    /// [`Tls::write`] before the handshake was complete. The connection itself is fine.
    #[error("TLS: the handshake is not complete")]
    Handshaking,
    /// TLS 1.2 has encrypted as many records with one key as is safe; clients connect again.
    #[error("TLS: the keys of the connection are used up")]
    Exhausted,
    /// The connection failed before, or [`Tls::close_notify`] was called.
    #[error("TLS: the connection is closed")]
    Closed,
}

impl Tls {
    /// Begins a connection that waits for a ClientHello. Fails only on a configuration that rustls
    /// cannot serve with.
    pub fn new(config: Arc<ServerConfig>) -> Result<Tls, rustls::Error> {
        Ok(Tls {
            connection: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            stage: Stage::Open,
            peer_closed: false,
        })
    }

    /// Takes bytes from the socket, split in any way, and appends what they decrypt to: less than
    /// the input and one more record. Call [`Tls::output`] afterwards, also after an error: answers
    /// of the handshake or an alert may wait. What came before an error is appended. Input after
    /// the close_notify of either side is ignored.
    pub fn read(&mut self, input: &[u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        match self.stage {
            Stage::Failed => return Err(TlsError::Closed),
            Stage::Closing => return Ok(()),
            Stage::Open if self.peer_closed => return Ok(()),
            Stage::Open => {}
        }
        self.incoming.extend_from_slice(input);
        self.process(plain).inspect_err(|_| self.fail())
    }

    /// Encrypts. The result waits for [`Tls::output`], the plaintext is not kept. An error other
    /// than [`TlsError::Handshaking`] is the end of the connection.
    pub fn write(&mut self, plain: &[u8]) -> Result<(), TlsError> {
        if self.stage != Stage::Open {
            return Err(TlsError::Closed);
        }
        if self.handshaking() {
            return Err(TlsError::Handshaking);
        }
        self.encrypt(plain).map_err(|_| {
            self.fail();
            TlsError::Exhausted
        })
    }

    /// Tells the peer that nothing more follows. From here on input is ignored and nothing can be
    /// written. During the handshake there is nothing to tell.
    pub fn close_notify(&mut self) {
        if self.stage != Stage::Open {
            return;
        }
        self.stage = Stage::Closing;
        if !self.handshaking() {
            let status = self.connection.process_tls_records(&mut self.incoming);
            if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
                // Too small a buffer leaves the alert in the queue that is moved out below.
                let _ = traffic.queue_close_notify(&mut []);
            }
        }
        self.flush();
        self.incoming = Vec::new();
    }

    /// Appends what must go to the socket, and forgets it. An empty `out` gets the buffer itself.
    pub fn output(&mut self, out: &mut Vec<u8>) {
        let outgoing = mem::take(&mut self.outgoing);
        if out.is_empty() && !outgoing.is_empty() {
            *out = outgoing;
        } else {
            out.extend_from_slice(&outgoing);
        }
    }

    /// Whether the handshake is not complete yet: nothing can be written.
    pub fn handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Version and cipher suite, once they are agreed on.
    pub fn describe(&self) -> Option<String> {
        let version = self.connection.protocol_version()?;
        let suite = self.connection.negotiated_cipher_suite()?.suite();
        Some(format!("{} {}", version.as_str()?, suite.as_str()?))
    }

    /// Whether the peer sent close_notify: the end of its data is authentic. An end of the socket
    /// without it is a truncation.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Lets rustls take `incoming` as far as it is complete.
    fn process(&mut self, plain: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut incoming = mem::take(&mut self.incoming);
        let mut done = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut incoming[done..]);
            let mut taken = discard;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plain.extend_from_slice(record.payload);
                        taken += record.discard;
                    }
                }
                ConnectionState::EncodeTlsData(data) => encode(data, &mut self.outgoing)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => {
                    done += taken;
                    break;
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.peer_closed = true;
                    return Ok(());
                }
                _ => return Err(TlsError::EarlyData),
            }
            done += taken;
        }
        // What is left gets its own allocation, so that the end of a large input does not hold it.
        self.incoming = if done == 0 { incoming } else { incoming[done..].to_vec() };
        if self.incoming.len() > INCOMING_BYTES_MAX {
            return Err(TlsError::HandshakeTooLong);
        }
        Ok(())
    }

    fn encrypt(&mut self, plain: &[u8]) -> Result<(), EncryptError> {
        let status = self.connection.process_tls_records(&mut self.incoming);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
            return Err(EncryptError::EncryptExhausted);
        };
        let records = plain.len().div_ceil(RECORD_PLAINTEXT_MAX);
        let begin = self.outgoing.len();
        let mut end = begin + plain.len() + records * RECORD_OVERHEAD_MAX;
        let result = loop {
            self.outgoing.resize(end, 0);
            match traffic.encrypt(plain, &mut self.outgoing[begin..]) {
                // The answer to a key update goes out before the data and needs room too. The
                // same state must take it: the next one would hand it out for itself.
                Err(EncryptError::InsufficientSize(size)) if begin + size.required_size > end => {
                    end = begin + size.required_size;
                }
                result => break result,
            }
        };
        let written = result.as_ref().map_or(0, |written| *written);
        self.outgoing.truncate(begin + written);
        result.map(|_| ())
    }

    fn fail(&mut self) {
        self.stage = Stage::Failed;
        self.incoming = Vec::new();
        self.flush();
    }

    /// Moves what rustls has queued to `outgoing`. The connection takes no input afterwards.
    fn flush(&mut self) {
        while self.connection.wants_write() {
            let status = self.connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(data)) = status.state else {
                return;
            };
            if encode(data, &mut self.outgoing).is_err() {
                return;
            }
        }
    }
}

/// How far the connection is from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// close_notify was sent.
    Closing,
    /// An error was returned; the alert may still be in `outgoing`.
    Failed,
}

fn encode(
    mut data: EncodeTlsData<'_, ServerConnectionData>,
    outgoing: &mut Vec<u8>,
) -> Result<(), TlsError> {
    let begin = outgoing.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        outgoing.resize(begin + size.required_size, 0);
        data.encode(&mut outgoing[begin..]).map_err(|_| TlsError::Closed)?;
    }
    Ok(())
}
