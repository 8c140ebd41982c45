//! The protocol between the gateway and worker processes (netsvr's), as far as clients of every
//! protocol need it: frames, events and the names of connections, sans-io (netsvr sections 2.9, 3
//! and 5.4).
//!
//! Invariants: nothing here trusts a length from the network; every frame that is written has
//! exactly the size that was computed for it and a length that fits its header.
//! Costs: a frame that is read is one allocation, its payload a slice of it; a frame that is
//! written is one allocation of exact size. [`proto`] has all messages as prost types, also those
//! of [`crate::protocols::netsvr::wire`].

pub(crate) mod encode;
mod events;
mod frame;
mod uniq_id;

/// The messages as prost types, for whatever is not the data path.
#[allow(missing_docs)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/netsvr.rs"));
}

pub use events::{conn_close, transfer};
pub use frame::{Frame, FrameError, FrameReader};
pub use proto::Cmd;
pub use uniq_id::{Named, UniqId, UniqIds, conn_id};

/// Bytes before the message of a frame: length and command number (section 3.1).
pub const HEADER: usize = 8;

/// The number on the wire is not in section 4.1, or is `Placeholder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown command number {0}")]
pub struct UnknownCmd(pub u32);

impl TryFrom<u32> for Cmd {
    type Error = UnknownCmd;

    fn try_from(number: u32) -> Result<Cmd, UnknownCmd> {
        let cmd = i32::try_from(number).ok().and_then(|number| Cmd::try_from(number).ok());
        cmd.filter(|cmd| *cmd != Cmd::Placeholder).ok_or(UnknownCmd(number))
    }
}

impl Cmd {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether it goes from the gateway to a business, which never sends it.
    pub const fn is_event(self) -> bool {
        matches!(self, Cmd::ConnOpen | Cmd::ConnClose | Cmd::Transfer)
    }

    /// Whether generation 6 sends it to the worker port; all others go to the task port (section
    /// 1).
    pub const fn is_for_workers(self) -> bool {
        matches!(self, Cmd::Register | Cmd::Unregister)
    }

    /// Whether it is a command that gets no response.
    pub const fn is_one_way(self) -> bool {
        self.number() / 1000 == 900_002
    }
}
