//! connmix's API without a socket: requests, answers, events, HTTP bodies.

use proptest::prelude::*;
use ringway::protocols::connmix::wire::{self, Answer, ApiRequest, Call, Code};
use ringway::wire::http::body::{Body, Framing};
use ringway::wire::http::fault::Fault;
use ringway::wire::json::Index;
use ringway::wire::queue;
use ringway::wire::websocket::Opcode;
use serde_json::Value;

/// JSON values of every kind, written by another library.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z\"\\\\/\u{e9}\u{1f600}\u{0}]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        let key = prop_oneof!["[mpicdtfaE]", "id", any::<String>()];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Requests that are nearly right.
fn request() -> impl Strategy<Value = String> {
    let method = prop_oneof![
        Just("mesh.send"),
        Just("mesh.publish"),
        Just("conn.call"),
        Just("queue.pop"),
        Just("queue.unpop"),
        Just("server.ping"),
        Just("x"),
    ];
    let params = proptest::collection::vec(("[cdtfa]", value()), 0..5)
        .prop_map(|members| Value::Object(members.into_iter().collect()));
    let params = prop_oneof![3 => params, 1 => value()];
    (method, params, value()).prop_map(|(method, params, id)| {
        serde_json::json!({"m": method, "p": params, "i": id}).to_string()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_message_has_one_answer_that_is_json(text in prop_oneof![
        request(), value().prop_map(|value| value.to_string()), any::<String>()
    ]) {
        let mut index = Index::default();
        let envelope = wire::envelope(text.as_bytes(), &mut index);
        let answer = match envelope.request {
            Ok(_) => Answer::Done,
            Err(fault) => Answer::from(fault),
        };
        let frame = wire::text_frame(answer, envelope.id);
        let answer: Value = serde_json::from_slice(payload(&frame)).expect("an answer is JSON");
        let asked: Option<Value> = serde_json::from_str(&text).ok();
        let id = asked.as_ref().and_then(|asked| asked.get("i").or(asked.get("id")));
        let echoes = |id: &Value| id.is_number() || id.is_string() || id.is_null();
        let id = id.filter(|id| echoes(id)).cloned().unwrap_or(Value::Null);
        prop_assert_eq!(&answer["i"], &id);
        prop_assert_eq!(answer["E"].is_null(), answer.get("r").is_some());
    }

    #[test]
    fn any_bytes_at_all_are_answered(bytes: Vec<u8>) {
        let mut index = Index::default();
        let envelope = wire::envelope(&bytes, &mut index);
        prop_assert!(envelope.request.is_err() && envelope.id == "null");
        prop_assert!(wire::send(&bytes, &mut index).is_err());
        prop_assert!(wire::publish(&bytes, &mut index).is_err());
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..10),
        cuts in proptest::collection::vec(1usize..30, 1..20),
    ) {
        let whole: Vec<u8> = chunks.concat();
        let mut coded = Vec::new();
        for chunk in &chunks {
            coded.extend(format!("{:X}\r\n", chunk.len()).into_bytes());
            coded.extend_from_slice(chunk);
            coded.extend_from_slice(b"\r\n");
        }
        coded.extend_from_slice(b"0\r\n\r\nnext");
        for (framing, bytes) in [
            (Framing::Chunked, coded),
            (Framing::Length(whole.len()), [&whole[..], b"next"].concat()),
        ] {
            let mut body = Body::new(framing, 1000);
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            let mut left: &[u8] = &[];
            loop {
                let size = (*cuts.next().expect("a cycle")).min(rest.len());
                let (piece, after) = rest.split_at(size);
                let joined = [left, piece].concat();
                let mut input = &joined[..];
                rest = after;
                if body.read(&mut input) == Ok(true) {
                    prop_assert_eq!([input, rest].concat(), b"next");
                    break;
                }
                prop_assert!(input.is_empty() && !rest.is_empty());
                left = &[];
            }
            prop_assert_eq!(body.bytes(), &whole[..]);
        }
    }
}

fn payload(frame: &[u8]) -> &[u8] {
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}

#[test]
fn parameters_may_have_the_shapes_of_php() {
    let index = &mut Index::default();
    let pop = |params: &str| {
        let text = format!(r#"{{"m":"queue.pop","p":{params}}}"#);
        match wire::envelope(text.as_bytes(), &mut Index::default()).request {
            Ok(ApiRequest::Pop { topics }) => Some(topics.join("+")),
            _ => None,
        }
    };
    assert_eq!(pop(r#"{"t":["b","a","b"]}"#).as_deref(), Some("a+b"));
    assert_eq!(pop(r#"["a"]"#).as_deref(), Some("a"));
    assert_eq!(pop(r#"{"t":"a"}"#), None);
    assert_eq!(pop(&format!("[\"{}\"]", "x".repeat(256))), None);
    for params in ["{}", "[]", "null", r#"{"x":1}"#] {
        let text = format!(r#"{{"m":"queue.unpop","p":{params}}}"#);
        assert_eq!(
            wire::envelope(text.as_bytes(), index).request,
            Ok(ApiRequest::Unpop),
            "{params}"
        );
    }
    assert_eq!(wire::envelope(br#"{"m":"queue.unpop"}"#, index).request, Ok(ApiRequest::Unpop));
    let text = r#"{"m":"conn.call","p":[{"c":7,"f":"set_context","a":[[]]}]}"#;
    let call = Call::SetContext(Vec::new());
    assert_eq!(
        wire::envelope(text.as_bytes(), index).request,
        Ok(ApiRequest::Call { client: 7, call })
    );
    let text = r#"{"c":"7","d":"AAEC_w"}"#;
    assert!(wire::send(text.as_bytes(), index).is_ok(), "text is not decoded");
    for (data, ok) in [("AAEC/w==", true), ("AAEC/w", true), ("AAEC_w", false), ("A A=", false)] {
        let text = format!(r#"{{"c":"7","d":"{data}","t":"binary"}}"#);
        match wire::send(text.as_bytes(), index) {
            Ok(ApiRequest::Send { data, opcode, client }) if ok => {
                assert_eq!((&*data, opcode, client), (&[0, 1, 2, 255][..], Opcode::Binary, 7));
            }
            other => assert!(other.is_err() && !ok, "{data}: {other:?}"),
        }
    }
}

#[test]
fn answers_and_events_are_written_as_specified() {
    let text = |answer, id: &str| {
        String::from_utf8(payload(&wire::text_frame(answer, id)).to_vec()).expect("text")
    };
    assert_eq!(text(Answer::Done, "12345"), r#"{"E":null,"r":{"s":true},"i":12345}"#);
    let counts = Answer::Counts { reached: 2, failed: 0 };
    assert_eq!(text(counts, "8"), r#"{"E":null,"r":{"s":2,"f":0},"i":8}"#);
    assert_eq!(text(Answer::Pong, "26"), r#"{"E":null,"r":{"m":"server.pong"},"i":26}"#);
    let error = Answer::Error { code: Code::SendFailed, message: "client not found" };
    assert_eq!(text(error, "\"a\""), r#"{"E":{"c":401,"m":"client not found"},"i":"a"}"#);
    assert_eq!(wire::http_body(Answer::Done), br#"{"E":null,"r":{"s":true}}"#);
    let event = queue::event(1, 1_463_819_408_261_513_216, "t\"1", r#"{"x":[]}"#);
    assert_eq!(event[0], 0x81);
    let params = r#"{"n":1,"c":"1463819408261513216","t":"t\"1","d":{"x":[]}}"#;
    assert_eq!(
        std::str::from_utf8(payload(&event)).expect("text"),
        format!(r#"{{"e":"queue.pop","p":{params},"id":null}}"#)
    );
    let long = queue::event(1, 1, "t", &format!("\"{}\"", "x".repeat(70_000)));
    assert!(serde_json::from_slice::<Value>(payload(&long)).is_ok());
}

#[test]
fn chunks_that_lie_about_their_size_are_refused() {
    let read = |bytes: &[u8]| {
        let mut body = Body::new(Framing::Chunked, 100);
        body.read(&mut &bytes[..])
    };
    assert_eq!(read(b"65\r\n"), Err(Fault::Body));
    assert_eq!(read(b"64\r\n"), Ok(false));
    assert_eq!(read(b"fffffffffffffffffffffffff\r\n"), Err(Fault::Body));
    assert_eq!(read(b"3\r\nabcd"), Err(Fault::Chunk));
    assert_eq!(read(b"\r\n"), Err(Fault::Chunk));
    assert_eq!(read(b"-1\r\n"), Err(Fault::Chunk));
    assert_eq!(read(&[b"1;", &[b'x'; 300][..]].concat()), Err(Fault::Chunk));
    assert_eq!(read(&[b"0\r\n", &[b'x'; 9000][..]].concat()), Err(Fault::Chunk));
}

/// RFC 9112 section 7.1: who takes another line end for one sees other requests than a proxy does.
#[test]
fn lines_of_chunks_end_with_cr_lf_and_nothing_else() {
    let read = |text: &[u8]| Body::new(Framing::Chunked, 100).read(&mut &*text);
    for good in ["1;a=b\r\nx\r\n0\r\n\r\n", "1 ;a\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n"] {
        assert_eq!(read(good.as_bytes()), Ok(true), "{good:?}");
    }
    let bad = [
        "1\nx\r\n0\r\n\r\n",
        "1;a\nx\r\n0\r\n\r\n",
        "1;a\rb\r\nx\r\n0\r\n\r\n",
        "1;\0\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nxyz\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\r\nA: b\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\n: b\r\n\r\n",
    ];
    for bad in bad {
        assert_eq!(read(bad.as_bytes()), Err(Fault::Chunk), "{bad:?}");
    }
    let long = format!("{:065}\r\nx\r\n0\r\n\r\n", 1);
    assert_eq!(read(long.as_bytes()), Err(Fault::Chunk));
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(5000));
    assert_eq!(read(long.as_bytes()), Err(Fault::Chunk));
}
