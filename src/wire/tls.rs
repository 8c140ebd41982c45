//! The server side of one TLS connection, sans-io: bytes of the socket in, plaintext out, and back.
//!
//! Built on the unbuffered interface of rustls, because it holds no buffer while nothing happens.
//! When a handshake of TLS 1.3 is over, rustls hands out the keys and is given up (`records`): an
//! idle connection costs 2.2 kB of heap, with TLS 1.2, where rustls stays, 3.3 kB (without client
//! certificate). The buffered interface keeps 4 KiB more.
//!
//! Invariants:
//! * rustls remembers offsets into the input that it did not discard yet and panics on a slice that
//!   ends before them. So it never gets less of `incoming` than before, and an empty slice only
//!   while it has something to send, which it hands over before it looks at input.
//! * When a method returns, everything that rustls wants to send is in `outgoing`, in order.
//! * After an error rustls is asked for the alert and for nothing else: it would take the same
//!   input again. After our close_notify it gets no input: rustls asserts that it sends no second
//!   alert.
//!
//! Costs: an input is copied once, to be decrypted in place, and rustls allocates once per record
//! in each direction. Between calls `incoming` holds less than a record, during the handshake up to
//! `INCOMING_BYTES_MAX`; `outgoing` what [`Tls::output`] did not take yet.

mod records;

use std::mem;
use std::sync::Arc;

use rustls::ProtocolVersion;
pub use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};

use self::records::{Records, Taken};

/// Bytes of unfinished records and handshake messages that may wait for their end. The same as in
/// the buffered interface of rustls; the certificate chain of a client is what needs most.
const INCOMING_BYTES_MAX: usize = 0xffff;
/// Plaintext bytes of a record at the most (RFC 8446 section 5.1).
const RECORD_PLAINTEXT_MAX: usize = 16_384;
/// Bytes that encryption adds to a record at the most: header, explicit nonce, content type, tag.
const RECORD_OVERHEAD_MAX: usize = 32;

/// The server side of one TLS connection. Large: its owner boxes it.
pub struct Tls {
    layer: Layer,
    /// The beginning of a record or handshake message whose end has not arrived.
    incoming: Vec<u8>,
    /// Bytes of whole records in it, which rustls has seen and waits for the end of their message.
    seen: usize,
    outgoing: Vec<u8>,
    stage: Stage,
    peer_closed: bool,
}

// Exists once per connection.
const _: () = assert!(size_of::<Tls>() <= 768);

/// Who encrypts and decrypts.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are of the largest, and boxed as a whole"
)]
enum Layer {
    /// During the handshake, and after it with TLS 1.2.
    Rustls(Box<UnbufferedServerConnection>),
    /// After a handshake of TLS 1.3.
    Records(Records),
    /// Nobody: the keys could not be had.
    Nobody,
}

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
            layer: Layer::Rustls(Box::new(UnbufferedServerConnection::new(config)?)),
            incoming: Vec::new(),
            seen: 0,
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
        let result = match self.layer {
            Layer::Rustls(_) => self.process(plain),
            _ => self.open(plain),
        };
        result.inspect_err(|error| self.fail(Some(error)))
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
        let Tls { layer, outgoing, .. } = self;
        let written = match layer {
            Layer::Rustls(_) => self.encrypt(plain).is_ok(),
            Layer::Records(records) => records.write(plain, outgoing).is_ok(),
            Layer::Nobody => false,
        };
        if written {
            return Ok(());
        }
        self.fail(None);
        Err(TlsError::Exhausted)
    }

    /// Tells the peer that nothing more follows. From here on input is ignored and nothing can be
    /// written. During the handshake there is nothing to tell.
    pub fn close_notify(&mut self) {
        if self.stage != Stage::Open {
            return;
        }
        self.stage = Stage::Closing;
        let Tls { layer, incoming, outgoing, .. } = self;
        match layer {
            Layer::Rustls(connection) if !connection.is_handshaking() => {
                let status = connection.process_tls_records(incoming);
                if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
                    // Too small a buffer leaves the alert in the queue that is moved out below.
                    let _ = traffic.queue_close_notify(&mut []);
                }
            }
            // Without it the end is a truncation.
            Layer::Records(records) => _ = records.close(outgoing),
            _ => {}
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
        matches!(&self.layer, Layer::Rustls(connection) if connection.is_handshaking())
    }

    /// Version and cipher suite, once they are agreed on.
    pub fn describe(&self) -> Option<String> {
        let (version, suite) = match &self.layer {
            Layer::Rustls(connection) => {
                (connection.protocol_version()?, connection.negotiated_cipher_suite()?.suite())
            }
            Layer::Records(records) => (ProtocolVersion::TLSv1_3, records.suite()),
            Layer::Nobody => return None,
        };
        Some(format!("{} {}", version.as_str()?, suite.as_str()?))
    }

    /// Whether the peer sent close_notify: the end of its data is authentic. An end of the socket
    /// without it is a truncation.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Decrypts `incoming` as far as records are complete.
    fn open(&mut self, plain: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut incoming = mem::take(&mut self.incoming);
        let Layer::Records(records) = &mut self.layer else { return Err(TlsError::Closed) };
        let Taken { bytes, closed } = records.read(&mut incoming, plain, &mut self.outgoing)?;
        self.peer_closed = closed;
        if !closed {
            self.keep(incoming, bytes);
        }
        Ok(())
    }

    /// Keeps what is left of the input for later.
    fn keep(&mut self, incoming: Vec<u8>, done: usize) {
        // It gets its own allocation, so that the end of a large input does not hold it.
        self.incoming = if done == 0 { incoming } else { incoming[done..].to_vec() };
    }

    /// Lets rustls take `incoming` as far as it is complete, one record after the other: what
    /// follows a handshake of TLS 1.3 is not for it.
    fn process(&mut self, plain: &mut Vec<u8>) -> Result<(), TlsError> {
        let Layer::Rustls(connection) = &mut self.layer else { return Err(TlsError::Closed) };
        let mut incoming = mem::take(&mut self.incoming);
        let mut done = 0;
        let mut begin = self.seen;
        let mut end = record_end(&incoming, begin);
        loop {
            let UnbufferedStatus { discard, state } =
                connection.process_tls_records(&mut incoming[done..end]);
            done += discard;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plain.extend_from_slice(record.payload);
                        done += record.discard;
                    }
                    continue;
                }
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, &mut self.outgoing)?;
                    continue;
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    continue;
                }
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => {}
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.peer_closed = true;
                    return Ok(());
                }
                _ => return Err(TlsError::EarlyData),
            }
            if !connection.is_handshaking() && is_13(connection) {
                self.keep(incoming, done);
                return self.take_over(plain);
            }
            if end == incoming.len() {
                break;
            }
            begin = end;
            end = record_end(&incoming, begin);
        }
        let whole = if record_bytes(&incoming[begin..]) == Some(end - begin) { end } else { begin };
        self.seen = whole.saturating_sub(done);
        self.keep(incoming, done);
        if self.incoming.len() > INCOMING_BYTES_MAX {
            return Err(TlsError::HandshakeTooLong);
        }
        Ok(())
    }

    /// Gives rustls up after a handshake of TLS 1.3, of which it has nothing left to send, and goes
    /// on with what it has not seen.
    fn take_over(&mut self, plain: &mut Vec<u8>) -> Result<(), TlsError> {
        if let Layer::Rustls(connection) = mem::replace(&mut self.layer, Layer::Nobody) {
            self.layer = Layer::Records(Records::of(*connection)?);
        }
        self.open(plain)
    }

    fn encrypt(&mut self, plain: &[u8]) -> Result<(), EncryptError> {
        let Layer::Rustls(connection) = &mut self.layer else {
            return Err(EncryptError::EncryptExhausted);
        };
        let status = connection.process_tls_records(&mut self.incoming);
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

    fn fail(&mut self, error: Option<&TlsError>) {
        self.stage = Stage::Failed;
        self.incoming = Vec::new();
        match (&mut self.layer, error) {
            (Layer::Records(records), Some(TlsError::Protocol(error))) => {
                // Without the alert the peer sees an end without a reason.
                let _ = records.refuse(error, &mut self.outgoing);
            }
            _ => self.flush(),
        }
    }

    /// Moves what rustls has queued to `outgoing`. The connection takes no input afterwards.
    fn flush(&mut self) {
        let Layer::Rustls(connection) = &mut self.layer else { return };
        while connection.wants_write() {
            let status = connection.process_tls_records(&mut []);
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

fn is_13(connection: &UnbufferedServerConnection) -> bool {
    connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
}

/// How long the record is that begins here, if that is known.
fn record_bytes(bytes: &[u8]) -> Option<usize> {
    let [_, _, _, high, low] = *bytes.first_chunk()?;
    Some(5 + usize::from(u16::from_be_bytes([high, low])))
}

/// Where the record ends that begins there, or the bytes do.
fn record_end(bytes: &[u8], begin: usize) -> usize {
    record_bytes(&bytes[begin..]).map_or(bytes.len(), |len| bytes.len().min(begin + len))
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
