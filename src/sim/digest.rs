//! What the gateway sent, as one number: a change that is not to change what it says can be held
//! against it.

use super::{Socket, World};

/// FNV-1a, 64 bits. Unlike the hashers of the standard library it stays what it is.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

fn more(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

impl Socket {
    /// Over all that was sent to the peer, whether the kernel took it or not, and how it ended.
    fn digest(&self) -> u64 {
        more(more(BASIS, &self.sent), &[u8::from(self.outbound_ended), u8::from(self.closed)])
    }
}

impl World {
    /// Over the bytes that were sent to each peer, in the order in which they connected.
    pub fn digest(&self) -> u64 {
        self.sockets.iter().fold(BASIS, |hash, socket| more(hash, &socket.digest().to_le_bytes()))
    }
}
