//! The backend side of netsvr, as far as the scenarios need it: commands out, events in.

use prost::Message;
pub use ringway::wire::worker::Cmd;
pub use ringway::wire::worker::proto::{
    Broadcast, CheckOnlineReq, ConnInfoUpdate, ConnOpen6, RegisterReq, SingleCast, TopicPublish,
    Transfer,
};

use crate::Result;

/// Events that a worker may register for.
pub const ON_OPEN: i32 = 1;
pub const ON_MESSAGE: i32 = 4;

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, cmd: Cmd, message: &impl Message) {
    let length = 4 + message.encoded_len() as u32;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&cmd.number().to_be_bytes());
    message.encode(out).expect("a vector grows");
}

/// A frame alone.
pub fn frame(cmd: Cmd, message: &impl Message) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, cmd, message);
    out
}

/// Splits what follows the length into command number and message.
pub fn split(frame: &[u8]) -> Result<(Cmd, &[u8])> {
    let (number, body) = frame.split_first_chunk().ok_or("a frame without command number")?;
    Ok((Cmd::try_from(u32::from_be_bytes(*number))?, body))
}

/// The shard in a uniqId: its last 8 hex characters are shard (8 bits) and slot (24 bits).
pub fn shard_of(uniq_id: &str) -> Option<u8> {
    let counter = uniq_id.get(uniq_id.len().checked_sub(8)?..)?;
    u32::from_str_radix(counter, 16).ok().map(|index| (index >> 24) as u8)
}
