//! The 11 bytes before every body (sections 2 and 3).
//!
//! ```text
//! len u32 | seq u32 | command u8 | flag u8 | status u8
//! flag: bits 7..4 version, bits 3..2 compression, bits 1..0 flow
//! ```
//!
//! The document leaves open in which order the bytes of a number come and what `len` counts; both
//! are configured.

use super::HEADER_BYTES;
use super::auto::Modes;

/// The highest version that the server speaks.
pub const VERSION_MAX: u8 = 1;

/// A header as it is on the wire. `len` means what the connection's [`LenMode`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub len: u32,
    pub seq: u32,
    pub command: u8,
    pub flag: u8,
    pub status: u8,
}

/// How a body is encoded (section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    /// 2 or 3.
    Reserved,
}

/// Who sends a frame, and why (section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flow {
    ClientCommand = 0,
    Response = 1,
    Notification = 2,
    Unassigned = 3,
}

/// How the numbers of a header are written (`im.byte_order`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ByteOrder {
    /// The highest byte first.
    #[default]
    Big,
    Little,
}

/// What `len` counts on a connection (section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LenMode {
    /// The bytes of the body.
    #[default]
    Body,
    /// Everything after `len`: 7 bytes more.
    Rest,
    /// Header and body: 11 bytes more.
    Frame,
}

/// What `len` of a new connection counts (`im.len_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LenRule {
    Always(LenMode),
    /// The first frame decides.
    Auto(Modes),
}

/// The versions that clients may speak (`im.versions`), as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions(u16);

impl Header {
    /// Reads a header.
    pub fn parse(bytes: &[u8; HEADER_BYTES], order: ByteOrder) -> Header {
        let [l0, l1, l2, l3, s0, s1, s2, s3, command, flag, status] = *bytes;
        let number = match order {
            ByteOrder::Big => u32::from_be_bytes,
            ByteOrder::Little => u32::from_le_bytes,
        };
        let (len, seq) = (number([l0, l1, l2, l3]), number([s0, s1, s2, s3]));
        Header { len, seq, command, flag, status }
    }

    /// The header as bytes.
    pub fn bytes(self, order: ByteOrder) -> [u8; HEADER_BYTES] {
        let number = match order {
            ByteOrder::Big => u32::to_be_bytes,
            ByteOrder::Little => u32::to_le_bytes,
        };
        let ([l0, l1, l2, l3], [s0, s1, s2, s3]) = (number(self.len), number(self.seq));
        [l0, l1, l2, l3, s0, s1, s2, s3, self.command, self.flag, self.status]
    }

    /// Bits 7 to 4 of the flag.
    pub fn version(self) -> u8 {
        self.flag >> 4
    }

    /// Bits 3 and 2 of the flag.
    pub fn compression(self) -> Compression {
        match self.flag >> 2 & 3 {
            0 => Compression::None,
            1 => Compression::Gzip,
            _ => Compression::Reserved,
        }
    }

    /// Bits 1 and 0 of the flag.
    pub fn flow(self) -> Flow {
        match self.flag & 3 {
            0 => Flow::ClientCommand,
            1 => Flow::Response,
            2 => Flow::Notification,
            _ => Flow::Unassigned,
        }
    }
}

/// The flag byte of these parts; the version has four bits.
pub(super) fn flag(version: u8, gzip: bool, flow: Flow) -> u8 {
    version << 4 | u8::from(gzip) << 2 | flow as u8
}

impl LenMode {
    /// How much more `len` counts than the body; a smaller `len` is impossible.
    pub const fn extra(self) -> u32 {
        match self {
            LenMode::Body => 0,
            LenMode::Rest => 7,
            LenMode::Frame => HEADER_BYTES as u32,
        }
    }

    /// What `len` says about a body of so many bytes.
    pub fn len(self, body_bytes: usize) -> u32 {
        debug_assert!(body_bytes <= super::FRAME_BYTES_MAX, "a body of {body_bytes} bytes");
        body_bytes as u32 + self.extra()
    }
}

impl LenRule {
    /// How a client is answered whose first frame was refused before it decided.
    pub(super) fn undecided(self) -> LenMode {
        match self {
            LenRule::Always(mode) => mode,
            LenRule::Auto(modes) => modes.least(),
        }
    }
}

impl Versions {
    /// 0 and 1 (section 3).
    pub const CURRENT: Versions = Versions(1 << VERSION_MAX | 1);

    /// Of a list of version numbers; each is 0 to 15.
    pub fn of(versions: &[u8]) -> Versions {
        Versions(versions.iter().fold(0, |bits, version| bits | 1 << (version & 15)))
    }

    /// Whether clients may speak this version.
    pub fn has(self, version: u8) -> bool {
        self.0 >> (version & 15) & 1 == 1
    }
}
