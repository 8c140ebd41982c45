//! The vectors of the xxim specification's section 10, from their file.

use bytes::Bytes;

const VECTORS: &str = include_str!("../vectors/xxim/vectors.txt");

/// The bytes of a vector.
pub fn vector(name: &str) -> Bytes {
    let mut lines = VECTORS.lines().filter_map(|line| line.split_once(' '));
    let (_, hex) = lines.find(|(found, _)| *found == name).unwrap_or_else(|| panic!("no {name}"));
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("hex") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
