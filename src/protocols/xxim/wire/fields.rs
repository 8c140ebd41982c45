//! Top-level fields of a protobuf message, without knowing its type.
//!
//! Invariants: never reads outside of the message; what it accepts is what protobuf accepts:
//! varints of at most 64 bits, field numbers from 1 to 2^29-1, groups that are closed.
//! Costs: one pass, no allocation.

/// The bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message")]
pub struct Malformed;

/// Wire types.
pub(super) const VARINT: u8 = 0;
const FIXED64: u8 = 1;
pub(super) const LEN: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

const NUMBER_MAX: u64 = (1 << 29) - 1;
/// Groups within groups; nobody sends any.
const GROUPS_MAX: usize = 32;

/// One field as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub number: u32,
    pub wire_type: u8,
    /// Key and value.
    pub whole: &'a [u8],
    /// The value: contents of a field that has a length, the bytes of others.
    pub value: &'a [u8],
}

impl<'a> Field<'a> {
    /// The text of a field that has a length. A field of another type is an unknown one: `None`.
    pub fn text(&self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.value).map_err(|_| Malformed)
    }

    /// Whether it is this field with a length.
    pub fn is(&self, number: u32) -> bool {
        self.number == number && self.wire_type == LEN
    }
}

/// The fields of a message in order. After an error there are no more.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    fn read(&mut self) -> Result<Field<'a>, Malformed> {
        let start = self.0;
        let (number, wire_type) = key(&mut self.0)?;
        let value = match wire_type {
            VARINT => {
                let before = self.0;
                varint(&mut self.0)?;
                &before[..before.len() - self.0.len()]
            }
            FIXED64 => take(&mut self.0, 8)?,
            FIXED32 => take(&mut self.0, 4)?,
            LEN => {
                let len = usize::try_from(varint(&mut self.0)?).map_err(|_| Malformed)?;
                take(&mut self.0, len)?
            }
            GROUP => group(&mut self.0, number)?,
            _ => return Err(Malformed),
        };
        let whole = &start[..start.len() - self.0.len()];
        Ok(Field { number, wire_type, whole, value })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Field number and wire type.
fn key(bytes: &mut &[u8]) -> Result<(u32, u8), Malformed> {
    let key = varint(bytes)?;
    let number = key >> 3;
    if number == 0 || number > NUMBER_MAX {
        return Err(Malformed);
    }
    Ok((number as u32, (key & 7) as u8))
}

/// Skips a group whose start was read.
fn group<'a>(bytes: &mut &'a [u8], number: u32) -> Result<&'a [u8], Malformed> {
    let start = *bytes;
    let mut open = [0; GROUPS_MAX];
    open[0] = number;
    let mut depth = 1;
    while depth > 0 {
        let (number, wire_type) = key(bytes)?;
        match wire_type {
            VARINT => _ = varint(bytes)?,
            FIXED64 => _ = take(bytes, 8)?,
            FIXED32 => _ = take(bytes, 4)?,
            LEN => {
                let len = usize::try_from(varint(bytes)?).map_err(|_| Malformed)?;
                take(bytes, len)?;
            }
            GROUP => {
                *open.get_mut(depth).ok_or(Malformed)? = number;
                depth += 1;
            }
            GROUP_END if open[depth - 1] == number => depth -= 1,
            _ => return Err(Malformed),
        }
    }
    Ok(&start[..start.len() - bytes.len()])
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (value, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
    *bytes = rest;
    Ok(value)
}

/// Reads a varint of at most 64 bits.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for place in 0..10 {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        // The tenth byte has one bit left.
        if place == 9 && byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::protocols::xxim::wire::proto::CommonReq;

    fn numbers(message: &[u8]) -> Result<Vec<u32>, Malformed> {
        Fields::new(message).map(|field| field.map(|field| field.number)).collect()
    }

    #[test]
    fn every_wire_type_is_skipped_and_every_damage_is_seen() {
        let message = [
            0x08, 0x96, 0x01, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x1a, 2, 8, 9, 0x25, 1, 2, 3, 4, 0x2b,
            0x08, 1, 0x33, 0x34, 0x2c,
        ];
        assert_eq!(numbers(&message), Ok(vec![1, 2, 3, 4, 5]));
        for len in [2, 5, 13, 14, 17, 22, 24, 26] {
            assert_eq!(numbers(&message[..len]), Err(Malformed), "{len}");
        }
        let refused: [&[u8]; 6] = [
            &[0x00, 1],
            &[0x0c],
            &[0x0e],
            &[0x0b, 0x14],
            &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
            &[0x1a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ];
        for message in refused {
            assert_eq!(numbers(message), Err(Malformed), "{message:?}");
        }
        assert_eq!(numbers(&[0x0b; 40]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn whatever_another_decoder_accepts_is_accepted(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let walked = numbers(&bytes);
            if CommonReq::decode(&bytes[..]).is_ok() {
                prop_assert!(walked.is_ok());
            }
        }

        #[test]
        fn the_fields_are_the_message(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut joined = Vec::new();
            let mut intact = true;
            for field in Fields::new(&bytes) {
                match field {
                    Ok(field) => joined.extend_from_slice(field.whole),
                    Err(Malformed) => intact = false,
                }
            }
            prop_assert!(bytes.starts_with(&joined));
            prop_assert_eq!(intact, joined.len() == bytes.len());
        }
    }
}
