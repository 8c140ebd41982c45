//! What nodes say to each other over NATS: envelopes of `proto/mesh.proto`, their subjects and
//! their limits.
//!
//! Costs: an envelope is encoded into one allocation; of a received one the payloads are slices of
//! the message, the names are copied.

use bytes::Bytes;
use prost::Message;

/// Generated from `proto/mesh.proto`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/ringway.mesh.rs"));
}

pub use proto::envelope::Body;
pub use proto::{Envelope, Hello};

/// Version of the envelopes; others are ignored.
pub const VERSION: u32 = 1;
/// Names (connections, users, topics, addresses) of one envelope, together.
pub const NAMES_MAX: usize = 1_000_000;

/// Why a message of another node is not taken. It is counted and dropped; the link goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    #[error("this is no envelope: {0}")]
    Undecodable(String),
    #[error("version {0} instead of {VERSION}")]
    Version(u32),
    #[error("node {0} is not within 1 to 1023")]
    Node(u32),
    #[error("the envelope is empty, or what is in it is not known here")]
    Empty,
    #[error("{0}")]
    Wrong(&'static str),
}

/// Reads an envelope; what it says still has to be checked.
pub fn decode(message: Bytes) -> Result<(Envelope, Body), MeshError> {
    let undecodable = |error: prost::DecodeError| MeshError::Undecodable(error.to_string());
    let mut envelope = Envelope::decode(message).map_err(undecodable)?;
    if envelope.version != VERSION {
        return Err(MeshError::Version(envelope.version));
    }
    if !(1..=1023).contains(&envelope.node) {
        return Err(MeshError::Node(envelope.node));
    }
    let body = envelope.body.take().ok_or(MeshError::Empty)?;
    Ok((envelope, body))
}

/// Encodes an envelope.
pub fn encode(envelope: &Envelope) -> Bytes {
    envelope.encode_to_vec().into()
}

/// The subjects of a cluster.
#[derive(Clone, Debug)]
pub struct Subjects {
    prefix: String,
}

impl Subjects {
    /// `cluster`: letters, digits, `-` and `_`.
    pub fn new(cluster: &str) -> Subjects {
        Subjects { prefix: format!("ringway.{cluster}") }
    }

    /// Where nodes announce themselves.
    pub fn hello(&self) -> String {
        format!("{}.hello", self.prefix)
    }

    /// Commands and calls for one node.
    pub fn node(&self, node: u16) -> String {
        format!("{}.node.{node}", self.prefix)
    }

    /// Replies to one node.
    pub fn reply(&self, node: u16) -> String {
        format!("{}.reply.{node}", self.prefix)
    }

    /// What is published to topics of a bucket.
    pub fn topic(&self, bucket: u16) -> String {
        format!("{}.topic.{bucket}", self.prefix)
    }

    /// What is pushed to users of a bucket.
    pub fn user(&self, bucket: u16) -> String {
        format!("{}.user.{bucket}", self.prefix)
    }

    /// For everybody.
    pub fn all(&self) -> String {
        format!("{}.all", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(version: u32, node: u32, body: Option<Body>) -> Bytes {
        encode(&Envelope { version, node, instance: 7, sequence: 1, number: 0, body })
    }

    fn call() -> Option<Body> {
        Some(Body::Call(proto::Call { method: "m".into(), body: Bytes::from_static(b"b") }))
    }

    #[test]
    fn an_envelope_comes_back_as_it_was() {
        let (envelope, body) = decode(envelope(1, 1023, call())).expect("a valid one");
        assert_eq!((envelope.node, envelope.instance, envelope.sequence), (1023, 7, 1));
        assert_eq!(Some(body), call());
    }

    /// The bytes are the protocol: nodes of two versions of the program must agree.
    #[test]
    fn the_bytes_of_an_envelope_are_those_of_the_protocol() {
        let expected = b"\x08\x01\x10\x05\x19\x07\0\0\0\0\0\0\0\x20\x01\x4a\x06\x0a\x01m\x12\x01b";
        assert_eq!(envelope(1, 5, call()), expected[..]);
    }

    #[test]
    fn what_is_no_envelope_is_refused_with_its_reason() {
        let refused = |bytes: Bytes| decode(bytes).expect_err("refused");
        assert_eq!(refused(envelope(2, 1, call())), MeshError::Version(2));
        assert_eq!(refused(envelope(1, 0, call())), MeshError::Node(0));
        assert_eq!(refused(envelope(1, 1024, call())), MeshError::Node(1024));
        assert_eq!(refused(envelope(1, 1, None)), MeshError::Empty);
        assert_eq!(refused(Bytes::new()), MeshError::Version(0));
        let cut = envelope(1, 1, call());
        assert!(matches!(refused(cut.slice(..cut.len() - 1)), MeshError::Undecodable(_)));
    }
}
