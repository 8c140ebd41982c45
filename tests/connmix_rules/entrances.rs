//! The same JSON is the same value, whichever way it comes in: messages of WebSocket and TCP
//! clients, requests to the API, contexts, sessions, answers of backends.

use std::borrow::Cow;

use proptest::prelude::*;
use ringway::hub::context;
use ringway::protocols::connmix::rules::Resumed;
use ringway::protocols::connmix::wire::{self, ApiRequest, Call};
use ringway::wire::json::{self, Index};
use serde_json::Value;

use crate::{Client, texts};

/// Shows a message in every way that rules have.
const RULES: &str = r#"
framing = "json-line"
[[connmix.server.rule]]
on = "message"
when = { "json.method" = "exists" }
do = [
    { send = "${json.params|json}" },
    { set = { k = "${json.params}" } },
    { send = "${ctx.k|json}" },
    { push = { topic = "t", include = ["k=ctx.k"], extra = { d = "${json.params}" } } },
]
"#;

/// Copies from the answer of a backend.
const ASKS: &str = r#"
[[connmix.server.rule]]
on = "message"
do = [
    { http = { url = "http://127.0.0.1:1/", body = "", set = { k = "/k" } } },
    { send = "${ctx.k|json}" },
]
"#;

/// As another program reads it. A number that is too large for one goes through as it came, and is
/// null where a value is needed.
fn read(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) if error.to_string().starts_with("number out of range") => {
            json::tree(text.as_bytes()).unwrap_or_else(|| panic!("{text}: {error}"))
        }
        Err(error) => panic!("{text}: {error}"),
    }
}

/// The first texts of the effects of a message, as other programs read them; `None`: it was not
/// JSON to the rules.
fn by_rules(stream: bool, message: &str) -> Option<Vec<Value>> {
    let mut client = Client::new(RULES);
    client.stream = stream;
    let effects = client.text(message);
    if effects == ["no rule"] || effects == ["violation 1007"] {
        return None;
    }
    let mut found = Vec::new();
    for effect in &effects {
        if let Some(text) = effect.strip_prefix("send ") {
            found.push(read(text));
        } else if let Some(d) = effect.strip_prefix("push t ") {
            let d = read(d);
            found.extend([d["d"].clone(), d["k"].clone()]);
        } else if let Some(context) = effect.strip_prefix("context ") {
            found.push(read(context)["k"].clone());
        } else {
            panic!("{effects:?}");
        }
    }
    assert_eq!(found.len(), 5, "{effects:?}");
    Some(found)
}

fn by_answer(body: &str) -> Option<Value> {
    let mut client = Client::new(ASKS);
    assert!(client.text("go").is_empty());
    let effects = client.resume(Resumed::Answered(body.as_bytes()));
    let text = effects.last()?.strip_prefix("send ")?;
    Some(serde_json::from_str(text).expect("JSON"))
}

/// The value that `conn.call` sets.
fn by_api(request: &str) -> Option<Value> {
    let mut index = Index::default();
    match wire::envelope(request.as_bytes(), &mut index).request {
        Ok(ApiRequest::Call { call: Call::SetContext(values), .. }) => {
            let value = values.first().and_then(|(_, value)| *value);
            Some(serde_json::from_str(value.expect("not null")).expect("JSON"))
        }
        _ => None,
    }
}

fn by_session(session: &str) -> Option<Value> {
    let values = context::values(session)?;
    let value = values.first().and_then(|(_, value)| value.as_deref());
    Some(read(value?))
}

/// All entrances for `text` in an array: `None` is never one of the values.
fn everywhere(text: &str) -> Vec<Option<Value>> {
    let message = format!(r#"{{"method":"m","params":[{text}],"id":1}}"#);
    let request = format!(
        r#"{{"m":"conn.call","p":{{"c":7,"f":"set_context_value","a":["k",[{text}]]}},"i":1}}"#
    );
    let object = format!(r#"{{"k":[{text}]}}"#);
    let five = |found: Option<Vec<Value>>| match found {
        Some(found) => found.into_iter().map(Some).collect(),
        None => vec![None; 5],
    };
    let mut found: Vec<Option<Value>> = five(by_rules(false, &message));
    found.extend(five(by_rules(true, &message)));
    found.extend([by_answer(&object), by_api(&request), by_session(&object)]);
    found.push(json::tree(object.as_bytes()).map(|tree| tree["k"].clone()));
    found
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_text_is_the_same_value_everywhere(text in texts::text()) {
        let expected = json::tree(format!("[{text}]").as_bytes());
        prop_assert!(expected.is_some());
        for found in everywhere(&text) {
            prop_assert_eq!(&found, &expected);
        }
    }

    #[test]
    fn what_is_json_is_json_everywhere(text in texts::nearly(
        texts::text().prop_map(|text| format!(r#"{{"method":"m","params":[{text}]}}"#))
    )) {
        let mut index = Index::default();
        let tree = json::tree(text.as_bytes());
        let object = tree.as_ref().is_some_and(Value::is_object);
        let asks = |tree: &Value| tree.get("method").is_some() && tree.get("params").is_some();
        prop_assert_eq!(by_rules(true, &text).is_some(), tree.as_ref().is_some_and(asks));
        let mut rules = Client::new("[[connmix.server.rule]]\non = \"message\"\n\
            when = { json = \"exists\" }\ndo = [ { send = \"json\" } ]\n");
        let expected = if tree.is_some() { "send json" } else { "no rule" };
        prop_assert_eq!(rules.text(&text), [expected]);
        let unread = |fault: wire::Fault| fault.0 == "invalid json";
        let message = wire::envelope(text.as_bytes(), &mut index).request;
        prop_assert_eq!(message.is_err_and(unread), !object);
        prop_assert_eq!(wire::send(text.as_bytes(), &mut index).is_err_and(unread), !object);
        prop_assert_eq!(wire::publish(text.as_bytes(), &mut index).is_err_and(unread), !object);
        prop_assert_eq!(context::values(&text).is_some(), object);
    }

    #[test]
    fn a_string_has_the_same_characters_everywhere(string in texts::string()) {
        let tree = json::tree(string.as_bytes()).expect("a string");
        let expected = tree.as_str().expect("a string");
        let mut client = Client::new("[[connmix.server.rule]]\non = \"message\"\n\
            do = [ { send = \"${json.d}\" } ]\n");
        let sent = client.text(&format!(r#"{{"d":{string}}}"#));
        prop_assert_eq!(&sent, &[format!("send {expected}")]);
        let body = format!(r#"{{"c":"7","d":{string}}}"#);
        let mut index = Index::default();
        match wire::send(body.as_bytes(), &mut index) {
            Ok(ApiRequest::Send { data, .. }) => prop_assert_eq!(&*data, expected.as_bytes()),
            other => prop_assert!(false, "{other:?}"),
        }
        let session = format!("{{{string}:1}}");
        let key = context::values(&session).expect("an object").remove(0).0;
        prop_assert_eq!(Cow::from(expected), serde_json::from_str::<String>(&key).expect("a key"));
    }
}

#[test]
fn the_vectors_hold_everywhere() {
    for vector in texts::vectors() {
        // Beside others in an array something else may be meant: `1,2`.
        let (Ok(text), Some(expected)) = (std::str::from_utf8(&vector.text), vector.value) else {
            continue;
        };
        let expected: Value = serde_json::from_str(expected).expect("JSON");
        for found in everywhere(text) {
            assert_eq!(found, Some(Value::from(vec![expected.clone()])), "line {}", vector.line);
        }
    }
}
