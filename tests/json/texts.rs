//! JSON texts: the vectors, and texts of every kind as peers write them.

use proptest::prelude::*;

const VECTORS: &str = include_str!("../vectors/json.txt");

/// One vector: a text, and what it means, written as plainly as possible; `None`: it is not JSON.
pub struct Vector {
    pub line: usize,
    pub text: Vec<u8>,
    pub value: Option<&'static str>,
}

/// All vectors.
pub fn vectors() -> Vec<Vector> {
    let mut found: Vec<Vector> = Vec::new();
    for (at, line) in VECTORS.lines().enumerate() {
        let line_number = at + 1;
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "" | "#" => continue,
            "+" | "-" => found.push(Vector { line: line_number, text: rest.into(), value: None }),
            "-hex" => found.push(Vector { line: line_number, text: bytes(rest), value: None }),
            "=" => found.last_mut().expect("a text comes first").value = Some(rest),
            _ => panic!("line {line_number}: {line}"),
        }
    }
    assert!(found.len() > 60, "{} vectors", found.len());
    found
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).expect("a byte");
    hex.split_ascii_whitespace().map(byte).collect()
}

/// White space where it may stand.
fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\t \r")]
}

/// A piece of a string: characters as they are, escapes of all forms, halves of pairs.
fn piece() -> impl Strategy<Value = String> {
    let escaped = |unit: u16, upper: bool| match upper {
        true => format!("\\u{unit:04X}"),
        false => format!("\\u{unit:04x}"),
    };
    let escape = (any::<u16>(), any::<bool>()).prop_map(move |(unit, upper)| escaped(unit, upper));
    let half = (0xd800u16..0xe000, any::<bool>()).prop_map(move |(unit, up)| escaped(unit, up));
    prop_oneof![
        4 => "[^\"\\\\\u{0}-\u{1f}]{0,4}",
        2 => "\\\\[\"\\\\/bfnrt]",
        1 => escape,
        2 => half,
        1 => Just("\\ud83d\\ude00".to_owned()),
    ]
}

/// A string, with its quotes.
pub fn string() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// A text of a few levels, without line feeds; every number has a float.
pub fn text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|flag| flag.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
        string(),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let element = (space(), inner.clone(), space()).prop_map(|(a, b, c)| format!("{a}{b}{c}"));
        let name = prop_oneof!["\"[a-c]\"", string()];
        let member = (space(), name, space(), space(), inner, space())
            .prop_map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"));
        let list = prop::collection::vec(element, 0..6);
        let object = prop::collection::vec(member, 0..6);
        prop_oneof![
            list.prop_map(|list| format!("[{}]", list.join(","))),
            object.prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

/// A text that is nearly one: a character of it was replaced, or taken out.
pub fn nearly(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let other =
        prop_oneof!["[\\[\\]{}:,\"\\\\ux0-9dD.eE+ \n-]?", any::<char>().prop_map(String::from)];
    (text, any::<prop::sample::Index>(), other).prop_map(|(text, at, other)| {
        let count = text.chars().count().max(1);
        let at = at.index(count);
        let replaced = |(index, c): (usize, char)| match index == at {
            true => other.clone(),
            false => c.to_string(),
        };
        text.chars().enumerate().map(replaced).collect()
    })
}
