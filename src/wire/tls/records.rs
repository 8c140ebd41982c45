//! The records of a TLS 1.3 connection after its handshake (RFC 8446 sections 4.6.3, 5 and 6).
//!
//! rustls makes the handshake and derives keys; its ciphers encrypt and decrypt single records.
//! What is here is the rest: lengths, types, numbers of records, changes of keys, alerts. A
//! connection of rustls would keep what the handshake needed, 1.2 kB more.
//!
//! Invariants:
//! * Each record number is used once per key and direction; a new key begins at 0.
//! * A key that has encrypted as many records as is safe is replaced, in time to say so with it.
//! * After an error nothing is decrypted any more.

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{
    AlertDescription, CipherSuite, ConnectionTrafficSecrets, ContentType, Error, InvalidMessage,
    PeerMisbehaved, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite,
};

use super::RECORD_PLAINTEXT_MAX;

/// Bytes before the encrypted ones.
const HEADER: usize = 5;
/// Encrypted bytes of a record at the most (section 5.2).
const RECORD_BYTES_MAX: usize = RECORD_PLAINTEXT_MAX + 256;
/// What every record says of its version (section 5.1).
const VERSION: ProtocolVersion = ProtocolVersion::TLSv1_2;
/// Changes of keys, and alerts without meaning, that a peer may send without data between.
const IDLE_MAX: u8 = 32;
/// A KeyUpdate without its last byte, which asks for one in return or does not (section 4.6.3).
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const NOT_REQUESTED: u8 = 0;
const REQUESTED: u8 = 1;
/// Alert levels.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Both directions of a connection.
pub(super) struct Records {
    /// Makes further keys.
    kernel: KernelConnection<ServerConnectionData>,
    suite: &'static Tls13CipherSuite,
    sealer: Box<dyn MessageEncrypter>,
    opener: Box<dyn MessageDecrypter>,
    /// Number of the next record.
    sealed: u64,
    opened: u64,
    /// Records that one key may encrypt.
    records_max: u64,
    /// What is left of [`IDLE_MAX`].
    idle_left: u8,
}

/// How far an input was taken.
pub(super) struct Taken {
    /// Bytes of whole records.
    pub bytes: usize,
    /// The last of them was the peer's close_notify.
    pub closed: bool,
}

impl Records {
    /// What the records are encrypted with.
    pub fn suite(&self) -> CipherSuite {
        self.suite.common.suite
    }

    /// Goes on with a connection of TLS 1.3 whose handshake is over and that has nothing to send.
    pub fn of(connection: UnbufferedServerConnection) -> Result<Records, Error> {
        let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
        let SupportedCipherSuite::Tls13(suite) = kernel.negotiated_cipher_suite() else {
            return Err(Error::General("not a cipher suite of TLS 1.3".into()));
        };
        let ((sealed, write), (opened, read)) = (secrets.tx, secrets.rx);
        let (sealer, opener) = (sealer(suite, write)?, opener(suite, read)?);
        let (records_max, idle_left) = (suite.common.confidentiality_limit, IDLE_MAX);
        Ok(Records { kernel, suite, sealer, opener, sealed, opened, records_max, idle_left })
    }

    /// Decrypts all whole records at the beginning of `input`, in place, and appends their data to
    /// `plain`; answers go to `out`. Stops behind a close_notify. After an error `plain` has what
    /// came before it, and the connection is over.
    pub fn read(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Taken, Error> {
        let mut taken = Taken { bytes: 0, closed: false };
        while let Some(len) = record_len(&input[taken.bytes..])? {
            let payload = &mut input[taken.bytes + HEADER..][..len];
            let record = InboundOpaqueMessage::new(ContentType::ApplicationData, VERSION, payload);
            let message = self.opener.decrypt(record, self.opened)?;
            self.opened += 1;
            taken.bytes += HEADER + len;
            match (message.typ, message.payload) {
                (ContentType::ApplicationData, data) => {
                    if !data.is_empty() {
                        self.idle_left = IDLE_MAX;
                    }
                    plain.extend_from_slice(data);
                }
                (ContentType::Alert, &[level, description]) => {
                    let description = AlertDescription::from(description);
                    if description == AlertDescription::CloseNotify {
                        taken.closed = true;
                        return Ok(taken);
                    }
                    if level != WARNING || description != AlertDescription::UserCanceled {
                        return Err(Error::AlertReceived(description));
                    }
                    self.idles()?;
                }
                // Nobody splits five bytes, and what follows has another key.
                (ContentType::Handshake, &[a, b, c, d, request]) if [a, b, c, d] == KEY_UPDATE => {
                    self.rekey(request, out)?;
                }
                (ContentType::Alert, _) => {
                    return Err(Error::InvalidMessage(InvalidMessage::MessageTooShort));
                }
                (got_type, _) => return Err(inappropriate(got_type)),
            }
        }
        Ok(taken)
    }

    /// Encrypts data and appends the records to `out`.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        for piece in plain.chunks(RECORD_PLAINTEXT_MAX) {
            if self.sealed + 1 >= self.records_max {
                self.change_key(out)?;
            }
            self.seal(ContentType::ApplicationData, piece, out)?;
        }
        Ok(())
    }

    /// Says that nothing more follows.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let description = u8::from(AlertDescription::CloseNotify);
        self.seal(ContentType::Alert, &[WARNING, description], out)
    }

    /// Says why the connection is over, unless the peer has said so.
    pub fn refuse(&mut self, error: &Error, out: &mut Vec<u8>) -> Result<(), Error> {
        let description = match error {
            Error::AlertReceived(_) => return Ok(()),
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => {
                AlertDescription::IllegalParameter
            }
            Error::InvalidMessage(_) => AlertDescription::DecodeError,
            _ => AlertDescription::UnexpectedMessage,
        };
        self.seal(ContentType::Alert, &[FATAL, u8::from(description)], out)
    }

    /// The peer has a new key, and perhaps wants one of us.
    fn rekey(&mut self, request: u8, out: &mut Vec<u8>) -> Result<(), Error> {
        self.idles()?;
        if request > REQUESTED {
            return Err(Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate));
        }
        let (opened, secret) = self.kernel.update_rx_secret()?;
        (self.opened, self.opener) = (opened, opener(self.suite, secret)?);
        if request == REQUESTED { self.change_key(out) } else { Ok(()) }
    }

    fn change_key(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let [kind, a, b, len] = KEY_UPDATE;
        self.seal(ContentType::Handshake, &[kind, a, b, len, NOT_REQUESTED], out)?;
        let (sealed, secret) = self.kernel.update_tx_secret()?;
        (self.sealed, self.sealer) = (sealed, sealer(self.suite, secret)?);
        Ok(())
    }

    /// Something came that is no data.
    fn idles(&mut self) -> Result<(), Error> {
        let left = self.idle_left.checked_sub(1);
        self.idle_left = left.ok_or(PeerMisbehaved::TooManyKeyUpdateRequests)?;
        Ok(())
    }

    fn seal(&mut self, typ: ContentType, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let payload = OutboundChunks::Single(plain);
        let message = OutboundPlainMessage { typ, version: VERSION, payload };
        let record = self.sealer.encrypt(message, self.sealed)?.encode();
        self.sealed += 1;
        if out.is_empty() {
            *out = record;
        } else {
            out.extend_from_slice(&record);
        }
        Ok(())
    }
}

/// Encrypted bytes of the record that the input begins with, if it is whole.
fn record_len(input: &[u8]) -> Result<Option<usize>, Error> {
    let &[kind, .., high, low] = match input.first_chunk::<HEADER>() {
        Some(header) => header,
        None => return Ok(None),
    };
    let kind = ContentType::from(kind);
    if kind != ContentType::ApplicationData {
        return Err(inappropriate(kind));
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > RECORD_BYTES_MAX {
        return Err(Error::PeerSentOversizedRecord);
    }
    Ok((input.len() >= HEADER + len).then_some(len))
}

fn inappropriate(got_type: ContentType) -> Error {
    Error::InappropriateMessage { expect_types: vec![ContentType::ApplicationData], got_type }
}

fn sealer(
    suite: &Tls13CipherSuite,
    secret: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageEncrypter>, Error> {
    let (key, iv) = split(secret)?;
    Ok(suite.aead_alg.encrypter(key, iv))
}

fn opener(
    suite: &Tls13CipherSuite,
    secret: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageDecrypter>, Error> {
    let (key, iv) = split(secret)?;
    Ok(suite.aead_alg.decrypter(key, iv))
}

fn split(secret: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    match secret {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(Error::General("a cipher that is not known".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use rustls::crypto::ring;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

    use super::super::{Layer, Tls};
    use super::*;

    /// A client and the records of the server, after the handshake.
    fn connected() -> (ClientConnection, Tls) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name");
        let cert = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![cert.clone()], key.into())
            })
            .expect("a certificate and its key");
        server.enable_secret_extraction = true;
        let mut roots = RootCertStore::empty();
        roots.add(cert).expect("a certificate");
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name).expect("a configuration");
        let mut server = Tls::new(Arc::new(server)).expect("a configuration");
        while client.is_handshaking() || client.wants_write() {
            assert_eq!(exchange(&mut client, &mut server).0, b"");
        }
        assert!(matches!(server.layer, Layer::Records(_)));
        (client, server)
    }

    /// Carries bytes there and back once; returns what each has received.
    fn exchange(client: &mut ClientConnection, server: &mut Tls) -> (Vec<u8>, Vec<u8>) {
        let (mut bytes, mut there, mut back) = (Vec::new(), Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("a vector");
        }
        server.read(&bytes, &mut there).expect("a client without faults");
        bytes.clear();
        server.output(&mut bytes);
        let mut rest = &*bytes;
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("a slice");
            client.process_new_packets().expect("a server without faults");
            // It ends with an error where there is no more yet.
            let _ = client.reader().read_to_end(&mut back);
        }
        (there, back)
    }

    #[test]
    fn a_key_is_replaced_before_it_has_encrypted_too_much() {
        let (mut client, mut server) = connected();
        let Layer::Records(records) = &mut server.layer else { panic!("not TLS 1.3") };
        records.records_max = 3;
        let mut highest = 0;
        for round in 0..50_u8 {
            server.write(&[round; 10]).expect("keys");
            let Layer::Records(records) = &mut server.layer else { panic!("no records") };
            highest = highest.max(records.sealed);
            assert_eq!(exchange(&mut client, &mut server).1, [round; 10]);
        }
        assert_eq!(highest, 2, "the third record of a key says that there is another one");
    }

    #[test]
    fn what_came_with_the_end_of_the_handshake_is_read() {
        let (mut client, mut server) = connected();
        client.refresh_traffic_keys().expect("a connection");
        client.writer().write_all(b"data").expect("a buffer");
        assert_eq!(exchange(&mut client, &mut server), (b"data".to_vec(), Vec::new()));
        server.write(b"answer").expect("keys");
        assert_eq!(exchange(&mut client, &mut server).1, b"answer");
    }

    /// What the server says to a record after the handshake, and what the client makes of it.
    fn refused(record: impl FnOnce(&mut ClientConnection) -> Vec<u8>) -> (Error, Error) {
        let (mut client, mut server) = connected();
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let bytes = record(&mut client);
        let error = match server.read(&bytes, &mut plain) {
            Err(super::super::TlsError::Protocol(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(plain.is_empty() && server.write(b"more").is_err());
        server.output(&mut out);
        client.read_tls(&mut &*out).expect("a slice");
        (error, client.process_new_packets().expect_err("an alert"))
    }

    #[test]
    fn what_is_no_record_of_tls_1_3_is_refused_with_an_alert() {
        for kind in [20, 21, 22, 24, 99] {
            let (error, seen) = refused(|_| vec![kind, 3, 3, 0, 1, 1]);
            assert!(matches!(error, Error::InappropriateMessage { .. }), "{kind}: {error}");
            assert_eq!(seen, Error::AlertReceived(AlertDescription::UnexpectedMessage));
        }
        let (error, seen) = refused(|_| vec![23, 3, 3, 0x41, 1]);
        assert_eq!(error, Error::PeerSentOversizedRecord);
        assert_eq!(seen, Error::AlertReceived(AlertDescription::RecordOverflow));
        let (error, seen) = refused(|_| [&[23, 3, 3, 0, 20][..], &[7; 20]].concat());
        assert_eq!(error, Error::DecryptError);
        assert_eq!(seen, Error::AlertReceived(AlertDescription::BadRecordMac));
    }

    /// The inner type is authentic: only the peer itself can send these.
    #[test]
    fn messages_that_nobody_sends_after_the_handshake_are_refused_with_an_alert() {
        let inner = |typ: ContentType, plain: &[u8]| -> (Error, Vec<u8>) {
            let (_, mut server) = connected();
            let Layer::Records(records) = &mut server.layer else { panic!("no records") };
            // Its own key for both directions: what it seals it can open.
            let (_, secret) = records.kernel.update_tx_secret().expect("TLS 1.3");
            let (key, iv) = split(secret).expect("a cipher");
            let (again, other) = (AeadKey::from(bytes_of(&key)), Iv::copy(iv.as_ref()));
            records.sealer = records.suite.aead_alg.encrypter(key, iv);
            records.opener = records.suite.aead_alg.decrypter(again, other);
            (records.sealed, records.opened) = (0, 0);
            let mut record = Vec::new();
            records.seal(typ, plain, &mut record).expect("keys");
            let (mut out, mut got) = (Vec::new(), Vec::new());
            let error = records.read(&mut record, &mut got, &mut out).err().expect("a refusal");
            (error, got)
        };
        for (typ, plain) in [
            (ContentType::Handshake, &[1, 0, 0, 0][..]),
            (ContentType::Handshake, &[24, 0, 0, 1, 2]),
            (ContentType::Handshake, &[24, 0, 0, 1]),
            (ContentType::Handshake, &[]),
            (ContentType::Alert, &[1]),
            (ContentType::Alert, &[2, 40]),
            (ContentType::Heartbeat, &[1]),
            (ContentType::ChangeCipherSpec, &[1]),
        ] {
            let (error, got) = inner(typ, plain);
            assert!(got.is_empty(), "{typ:?} {plain:?}: {error}");
        }
    }

    fn bytes_of(key: &AeadKey) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(key.as_ref());
        bytes
    }
}
