//! Writing of frames: those of a server, and masked ones for everything that plays a client.
//!
//! Every frame of a server is unmasked and unfragmented (netsvr section 2.7). Costs: one allocation
//! per frame, of exactly its size; a compressed one is first made in the deflater's buffer, or, if
//! it is large, where it stays, so that it never is in memory twice.

use bytes::Bytes;

use super::{CONTROL_BYTES_MAX, Opcode};
use crate::wire::deflate::Deflater;

/// Payloads longer than this are sent compressed to clients that agreed to it (netsvr section 2.7).
pub const COMPRESS_ABOVE: usize = 256;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const MASKED: u8 = 0x80;
/// Of a frame that is not masked: two bytes, and eight of length.
const HEADER_BYTES_MAX: usize = 10;
/// Payloads of so many bytes are copied once more after they were compressed.
const COPIED_BYTES_MAX: usize = 64 * 1024;

/// A data message.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    server_frame(FIN | opcode.bits(), payload)
}

/// A data message whose payload is these parts, one after the other.
pub fn frame_of(opcode: Opcode, parts: &[&[u8]]) -> Bytes {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut frame = header(FIN | opcode.bits(), 0, len, 0);
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    Bytes::from(frame)
}

/// Starts a data message with room for its payload of exactly `len` bytes, which the caller
/// appends.
pub fn begin_frame(opcode: Opcode, len: usize) -> Vec<u8> {
    header(FIN | opcode.bits(), 0, len, 0)
}

/// A data message compressed with permessage-deflate, whether that makes it smaller or not.
pub fn frame_compressed(opcode: Opcode, payload: &[u8], deflater: &mut Deflater) -> Bytes {
    let first_byte = FIN | RSV1 | opcode.bits();
    if payload.len() <= COPIED_BYTES_MAX {
        return server_frame(first_byte, deflater.deflate(payload));
    }
    let mut frame = vec![0; HEADER_BYTES_MAX];
    deflater.compress(payload, &mut frame);
    let (header, size) = header_bytes(first_byte, 0, frame.len() - HEADER_BYTES_MAX);
    let start = HEADER_BYTES_MAX - size;
    frame[start..HEADER_BYTES_MAX].copy_from_slice(&header[..size]);
    // It may wait for long.
    if frame.len() < frame.capacity() / 2 {
        frame.shrink_to_fit();
    }
    Bytes::from(frame).slice(start..)
}

/// A ping without payload, with which an idle peer shows that it is there.
pub fn ping() -> Bytes {
    control(PING, &[])
}

/// The answer to a ping with this payload, which has at most 125 bytes.
pub fn pong(payload: &[u8]) -> Bytes {
    control(PONG, payload)
}

/// A close frame. The reason is cut to 123 bytes, between two characters.
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = [0; CONTROL_BYTES_MAX];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + end].copy_from_slice(&reason.as_bytes()[..end]);
    control(CLOSE, &payload[..2 + end])
}

/// The answer to a client's close frame with this payload, which has at most 125 bytes.
pub fn close_echo(payload: &[u8]) -> Bytes {
    control(CLOSE, payload)
}

/// A frame as a client sends it. `first_byte` has FIN, the reserved bits and the opcode.
pub fn mask_frame(first_byte: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first_byte, MASKED, payload.len(), mask.len());
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn control(opcode: u8, payload: &[u8]) -> Bytes {
    debug_assert!(payload.len() <= CONTROL_BYTES_MAX, "a control frame of {}", payload.len());
    server_frame(FIN | opcode, &payload[..payload.len().min(CONTROL_BYTES_MAX)])
}

#[inline]
fn server_frame(first_byte: u8, payload: &[u8]) -> Bytes {
    let mut frame = header(first_byte, 0, payload.len(), 0);
    frame.extend_from_slice(payload);
    Bytes::from(frame)
}

/// Starts a frame in a buffer of its final size; `extra` bytes stand between header and payload.
fn header(first_byte: u8, masked: u8, len: usize, extra: usize) -> Vec<u8> {
    let (header, size) = header_bytes(first_byte, masked, len);
    let mut frame = Vec::with_capacity(size + extra + len);
    frame.extend_from_slice(&header[..size]);
    frame
}

/// The header of a frame whose payload has `len` bytes, without the mask, and its size.
fn header_bytes(first_byte: u8, masked: u8, len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = first_byte;
    match len {
        0..126 => {
            header[1] = masked | len as u8;
            (header, 2)
        }
        126..0x1_0000 => {
            header[1] = masked | 126;
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            (header, 4)
        }
        _ => {
            header[1] = masked | 127;
            header[2..].copy_from_slice(&(len as u64).to_be_bytes());
            (header, 10)
        }
    }
}
