//! The IM long connection protocol on the wire: header, frames, bodies, sans-io (IM sections 2 to
//! 9, 11).
//!
//! Invariants: nothing here trusts a length from the network; a [`Decoder`] gives the same frames
//! however the stream is cut, and holds bytes only while a frame is incomplete; a frame that is
//! written has a length that fits its header and is at most [`FRAME_BYTES_MAX`] bytes.
//! Costs: a frame that lies complete in the input is decoded without allocation and without copy.
//! A notification is one allocation for the body and one per wire format.

mod auto;
mod decode;
mod encode;
mod gzip;
mod header;
mod login;
mod numbers;

/// The messages as prost types.
#[allow(missing_docs)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/im.v1.rs"));
}

pub use auto::Modes;
pub use decode::{Decoder, Frame, Refusal, Rules};
pub use encode::{
    Answer, NotifyBody, Wire, chatroom_bytes, element, kick, notification, notify_body,
};
pub use gzip::{Gzip, GzipError};
pub use header::{ByteOrder, Compression, Flow, Header, LenMode, LenRule, VERSION_MAX, Versions};
pub use login::LoginFields;
pub use numbers::{ClientCommand, Commands, Status, Statuses};

/// Bytes of the header of every frame.
pub const HEADER_BYTES: usize = 11;
/// Bytes of a frame of the server (section 2).
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
