//! JSON: what is read is what another library reads, where halves of surrogate pairs are U+FFFD;
//! what a value shows of itself is the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::wire::json::{Index, quoted, tree};
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let mut index = Index::default();
    let Some(value) = index.read(data) else {
        // It accepts more levels.
        let deep = data.iter().filter(|byte| b"[{".contains(byte)).count() > 64;
        let theirs = serde_json::from_slice::<IgnoredAny>(data);
        assert!(deep || theirs.is_err() || std::str::from_utf8(data).is_err());
        return;
    };
    let text = value.text();
    assert_eq!(tree(text.as_bytes()), Some(value.tree()));
    match serde_json::from_str::<Value>(text) {
        Ok(theirs) => assert_eq!(value.tree(), theirs),
        Err(error) => assert!(error.to_string().contains("out of range"), "{error}"),
    }
    if let Some(string) = value.string() {
        assert_eq!(tree(quoted(&string).as_bytes()), Some(Value::from(string)));
    }
});
