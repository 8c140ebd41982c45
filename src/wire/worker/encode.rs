//! Writing protobuf messages of exactly known size: [`Encode::size`] first, then [`Encode::put`]
//! into one buffer (netsvr section 3.5).
//!
//! All field numbers of the protocol are below 16, so every key is one byte.

use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{Cmd, HEADER};

/// Wire types of protobuf.
const VARINT: u8 = 0;
const LEN: u8 = 2;
const FIXED32: u8 = 5;

/// The fields of a message, or some of them.
pub(crate) trait Encode {
    /// Bytes that [`Encode::put`] appends.
    fn size(&self) -> usize;
    fn put(&self, out: &mut Vec<u8>);
}

/// A message without header.
pub(crate) fn message(message: &impl Encode) -> Bytes {
    let size = message.size();
    let mut out = Vec::with_capacity(size);
    message.put(&mut out);
    debug_assert_eq!(out.len(), size);
    Bytes::from(out)
}

/// A frame. `None`: its length does not fit into the header.
#[inline]
pub(crate) fn frame(cmd: Cmd, message: &impl Encode) -> Option<Bytes> {
    let size = message.size();
    let length = u32::try_from(size.checked_add(HEADER / 2)?).ok()?;
    let mut out = Vec::with_capacity(HEADER + size);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&cmd.number().to_be_bytes());
    message.put(&mut out);
    debug_assert_eq!(out.len(), HEADER + size);
    Some(Bytes::from(out))
}

/// The header of a frame whose message has so many bytes. `None`: they are too many.
pub(crate) fn header(cmd: Cmd, size: usize) -> Option<Bytes> {
    let length = u32::try_from(size.checked_add(HEADER / 2)?).ok()?;
    let mut out = Vec::with_capacity(HEADER);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&cmd.number().to_be_bytes());
    Some(Bytes::from(out))
}

/// A frame without message.
pub(crate) fn empty(cmd: Cmd) -> Bytes {
    let mut out = [0, 0, 0, 4, 0, 0, 0, 0];
    out[4..].copy_from_slice(&cmd.number().to_be_bytes());
    Bytes::copy_from_slice(&out)
}

/// Bytes of a field whose contents have a length, written also when they are empty: list elements,
/// keys and values of maps, messages.
#[inline]
pub(crate) fn len_field_size(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// The part of such a field before its contents.
#[inline]
pub(crate) fn put_len(tag: u8, len: usize, out: &mut Vec<u8>) {
    let key = tag << 3 | LEN;
    // Almost every string is short.
    if let Ok(short @ 0..0x80) = u8::try_from(len) {
        return out.extend_from_slice(&[key, short]);
    }
    out.push(key);
    encode_varint(len as u64, out);
}

/// Such a field with contents that are at hand.
#[inline]
pub(crate) fn put_len_field(tag: u8, contents: &[u8], out: &mut Vec<u8>) {
    put_len(tag, contents.len(), out);
    out.extend_from_slice(contents);
}

/// Bytes of a single string or bytes field, which is left out when it is empty.
#[inline]
pub(crate) fn bytes_size(contents: &[u8]) -> usize {
    if contents.is_empty() { 0 } else { len_field_size(contents.len()) }
}

#[inline]
pub(crate) fn put_bytes(tag: u8, contents: &[u8], out: &mut Vec<u8>) {
    if !contents.is_empty() {
        put_len_field(tag, contents, out);
    }
}

/// Bytes of an integer field that is written also when it is 0: keys and values of maps.
pub(crate) fn varint_field_size(value: i64) -> usize {
    1 + encoded_len_varint(value as u64)
}

pub(crate) fn put_varint_field(tag: u8, value: i64, out: &mut Vec<u8>) {
    out.push(tag << 3 | VARINT);
    encode_varint(value as u64, out);
}

/// Bytes of a single integer field, which is left out when it is 0.
pub(crate) fn int_size(value: i64) -> usize {
    if value == 0 { 0 } else { varint_field_size(value) }
}

pub(crate) fn put_int(tag: u8, value: i64, out: &mut Vec<u8>) {
    if value != 0 {
        put_varint_field(tag, value, out);
    }
}

/// Bytes of a single float field, which is left out when it is 0.
pub(crate) fn float_size(value: f32) -> usize {
    if value == 0.0 { 0 } else { 5 }
}

pub(crate) fn put_float(tag: u8, value: f32, out: &mut Vec<u8>) {
    if value != 0.0 {
        out.push(tag << 3 | FIXED32);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Bytes of a list of strings.
pub(crate) fn list_size<'a>(list: impl Iterator<Item = &'a str>) -> usize {
    list.map(|element| len_field_size(element.len())).sum()
}

pub(crate) fn put_list<'a>(tag: u8, list: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    list.for_each(|element| put_len_field(tag, element.as_bytes(), out));
}
