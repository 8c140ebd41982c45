//! JSON as peers write it (RFC 8259): the reader against another library, and what is written.

#[path = "json/texts.rs"]
mod texts;

use proptest::prelude::*;
use ringway::limits::JSON_DEPTH_MAX;
use ringway::wire::json::{self, Index, ValueKind};
use serde::de::IgnoredAny;
use serde_json::Value;

/// The text with U+FFFD for each half of a pair, found without the reader.
fn mended(text: &str) -> String {
    let unit = |chars: &[char]| -> Option<u32> {
        let digits: String = chars.get(..6)?.iter().collect();
        u32::from_str_radix(digits.strip_prefix("\\u")?, 16).ok()
    };
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut at) = (String::new(), 0);
    while at < chars.len() {
        let taken = match (unit(&chars[at..]), unit(chars.get(at + 6..).unwrap_or_default())) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => {
                out.push('\u{fffd}');
                at += 6;
                continue;
            }
            (Some(_), _) => 6,
            (None, _) if chars[at] == '\\' => 2,
            (None, _) => 1,
        };
        let end = (at + taken).min(chars.len());
        out.extend(&chars[at..end]);
        at = end;
    }
    out
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_text_means_what_another_library_reads(text in texts::text()) {
        let mut index = Index::default();
        let value = index.read(text.as_bytes()).expect("this is JSON");
        let expected: Value = serde_json::from_str(&mended(&text)).expect("this is JSON");
        prop_assert_eq!(value.tree(), expected.clone());
        // What a value shows of itself needs no mending any more.
        prop_assert_eq!(serde_json::from_str::<Value>(value.text()).expect("JSON"), expected);
    }

    #[test]
    fn a_text_that_is_nearly_json_is_json_for_both_or_none(text in texts::nearly(texts::text())) {
        let ours = json::tree(text.as_bytes());
        // It does not look at halves of pairs in what it ignores, nor at the size of numbers.
        let theirs = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        prop_assert_eq!(ours.is_some(), theirs, "{}", text);
        if let (Some(ours), Ok(theirs)) = (ours, serde_json::from_str::<Value>(&mended(&text))) {
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn an_index_is_used_again(texts in prop::collection::vec(
        prop_oneof![texts::text(), texts::nearly(texts::text())], 1..8
    )) {
        let mut index = Index::default();
        for text in &texts {
            let again = index.read(text.as_bytes()).map(json::Value::tree);
            prop_assert_eq!(again, json::tree(text.as_bytes()));
        }
    }

    #[test]
    fn texts_that_are_written_come_back(texts: Vec<(String, String)>) {
        let mut out = String::new();
        json::push_texts(&mut out, texts.iter().map(|(name, value)| (&**name, &**value)));
        let mut index = Index::default();
        let object = index.read(out.as_bytes()).expect("this is JSON");
        let read: Vec<(String, String)> = object
            .members()
            .map(|(name, value)| (name.into_owned(), value.string().expect("a text").into_owned()))
            .collect();
        prop_assert_eq!(&read, &texts);
        for (text, _) in &texts {
            let theirs: String = serde_json::from_str(&json::quoted(text)).expect("a string");
            prop_assert_eq!(&theirs, text);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let theirs = std::str::from_utf8(&bytes).is_ok_and(|text| {
            serde_json::from_str::<IgnoredAny>(text).is_ok()
        });
        prop_assert_eq!(json::tree(&bytes).is_some(), theirs);
    }
}

#[test]
fn vectors_are_read_as_they_are_meant() {
    for vector in texts::vectors() {
        let expected = vector
            .value
            .map(|value| serde_json::from_str::<Value>(value).expect("the plain form is JSON"));
        assert_eq!(json::tree(&vector.text), expected, "line {}", vector.line);
    }
}

#[test]
fn values_are_found_where_they_lie() {
    let text =
        br#" {"op":"a\u4f60\ud83d\ude00\/\n","n":-1.5e+3,"l":[1,[],{"x":null},true],"e":{}} "#;
    let mut index = Index::default();
    let root = index.read(text).expect("this is JSON");
    assert_eq!(root.get("op").expect("it is there").string().expect("a text"), "a你😀/\n");
    assert_eq!(root.get("n").expect("it is there").text(), "-1.5e+3");
    let list = root.get("l").expect("it is there");
    assert_eq!(list.elements().count(), 4);
    let null = list.element(2).and_then(|element| element.get("x")).expect("it is there");
    assert!(null.is_null() && json::shown(null.text()).is_none());
    assert_eq!(list.element(3).map(|element| element.kind()), Some(ValueKind::Bool));
    assert!(list.element(4).is_none() && list.get("x").is_none());
    assert_eq!(root.get("e").expect("it is there").text(), "{}");
    assert!(root.get("missing").is_none() && root.string().is_none());
}

#[test]
fn numbers_keep_every_digit() {
    for (text, integer) in [
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("1463786910324359168", Some(1_463_786_910_324_359_168)),
        ("1.0", None),
        ("1e3", None),
        ("-0", Some(0)),
        ("\"1\"", None),
        ("1e999", None),
    ] {
        let mut index = Index::default();
        let value = index.read(text.as_bytes()).expect("this is JSON");
        assert_eq!((value.integer(), value.text()), (integer, text));
    }
    assert_eq!(json::tree(b"[1e999]"), Some(serde_json::json!([null])));
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut index = Index::default();
    assert!(index.read(nested(JSON_DEPTH_MAX).as_bytes()).is_some());
    assert!(index.read(nested(JSON_DEPTH_MAX + 1).as_bytes()).is_none());
    for open in ["[", "{\"a\":", "[{\"a\":"] {
        assert!(index.read(open.repeat(1 << 18).as_bytes()).is_none());
    }
}
