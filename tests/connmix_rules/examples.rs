//! The applications of connmix section 7.3, as their rules.

use ringway::protocols::connmix::rules::{Answer, Resumed};

use crate::Client;

/// Section 7.4, style B: a worker decides.
pub const CHAT: &str = include_str!("chat.toml");

/// Style A: private and public streams.
pub const STREAMS: &str = include_str!("streams.toml");

/// The quick start: one room at a time, remembered in the context.
pub const QUICK_START: &str = include_str!("quick_start.toml");

#[test]
fn chat_pushes_everything_and_waits_for_the_login() {
    let mut client = Client::new(CHAT);
    let headers = concat!(
        r#""headers":{"Host":"127.0.0.1:6790","Method":"GET","#,
        r#""RequestUri":"/chat?token=s%20e&room=7","ServerProtocol":"HTTP/1.1","#,
        r#""Upgrade":"websocket","X-Device":"phone"}"#
    );
    assert_eq!(client.open(), [format!(r#"push chat {{"event":"handshake",{headers}}}"#)]);
    let frame = concat!(
        r#""frame":{"type":"text","data":"{\"op\":\"auth\",\"args\":[\"user1\",\"123456\"]}","#,
        r#""finish":true}"#
    );
    assert_eq!(
        client.text(r#"{"op":"auth","args":["user1","123456"]}"#),
        [format!(r#"push chat {{"event":"message",{frame},{headers}}}"#)]
    );
    let waits = client.waits.as_ref().expect("the login is under way");
    assert!(matches!(&waits.awaits, Answer::Key { key, .. } if **key == *"\"uid\""));
    client.set("uid", "1");
    assert_eq!(client.resume(Resumed::Waited), [""; 0]);
    assert_eq!(
        client.text(r#"{"op":"ping"}"#),
        [concat!(
            r#"push chat {"event":"message","#,
            r#""frame":{"type":"text","data":"{\"op\":\"ping\"}","finish":true},"uid":1}"#
        )]
    );
    // Logged in: the key is there and nothing waits.
    client.text(r#"{"op":"auth"}"#);
    assert_eq!(client.waits, None);
    assert_eq!(client.text("not json"), ["no rule"]);
    assert_eq!(client.binary(b"{}"), ["no rule"]);
    assert_eq!(client.close(), [r#"push chat {"event":"close","uid":1}"#]);
}

#[test]
fn streams_ask_a_backend_and_keep_private_channels_private() {
    let mut client = Client::new(STREAMS);
    let refused = [r#"send {"code":1,"msg":"Not Auth"}"#];
    assert_eq!(client.text(r#"{"op":"subscribe","channel":"@balance"}"#), refused);
    // Somebody else's channel has the form of a private one.
    assert_eq!(client.text(r#"{"op":"subscribe","channel":"10001@balance"}"#), refused);
    let public = client.text(r#"{"op":"subscribe","channel":"BTCUSDT@depth"}"#);
    assert_eq!(public, ["+ex:BTCUSDT@depth", r#"send {"result":true}"#]);

    assert_eq!(client.text(r#"{"op":"auth","token":"a\"b"}"#), [""; 0]);
    let waits = client.waits.clone().expect("the backend is asked");
    let Answer::Call(call) = &waits.awaits else { panic!("{waits:?}") };
    assert_eq!(call.url, "http://127.0.0.1:8000/websocket_auth");
    assert_eq!(call.body, r#"{"token":"a\"b"}"#);
    assert_eq!((&*call.method, call.timeout.as_secs()), ("POST", 3));
    let resumed = client.resume(Resumed::Answered(br#"{"uid":10001,"x":1}"#));
    assert_eq!(resumed, [r#"context {"uid":10001}"#, r#"send {"result":true}"#]);

    let private = client.text(r#"{"op":"subscribe","channel":"@balance"}"#);
    assert_eq!(private, ["+ex:10001@balance", r#"send {"result":true}"#]);
    let private = client.text(r#"{"op":"subscribe","channel":"666@order"}"#);
    assert_eq!(private, ["+ex:10001@order", r#"send {"result":true}"#]);
    assert_eq!(client.text(r#"{"op":"subscribe","channel":"a@b@c"}"#), ["close 1008 "]);
    assert_eq!(client.text("hello"), ["close 1008 "]);
}

#[test]
fn a_login_that_fails_ends_with_on_error() {
    for how in [
        Resumed::Failed,
        Resumed::Answered(b"no json"),
        Resumed::Answered(br#"{"error":"unknown"}"#),
        Resumed::Answered(br#"{"uid":null}"#),
    ] {
        let mut client = Client::new(STREAMS);
        client.text(r#"{"op":"auth","token":"x"}"#);
        assert_eq!(client.resume(how), ["failed 0 http", "close 1008 "], "{how:?}");
        assert!(client.context.is_empty());
    }
    // Without a token there is nothing to ask, and no success is told.
    let mut client = Client::new(STREAMS);
    assert_eq!(client.text(r#"{"op":"auth"}"#), ["failed 0 http", "close 1008 "]);
}

#[test]
fn quick_start_has_one_room_at_a_time() {
    let mut client = Client::new(QUICK_START);
    let success = r#"send {"status":"success"}"#;
    assert_eq!(client.text(r#"{"op":"send","msg":"x"}"#), [r#"send {"status":"fail"}"#]);
    let joined = client.text(r#"{"op":"join","room_id":1002}"#);
    assert_eq!(joined, ["+room:1002", r#"context {"room":1002}"#, success]);
    let sent = client.text(r#"{"op":"send","msg":"a \"b\""}"#);
    let data = r#"{"client_id":"1463784730422935552","msg":"a \"b\""}"#;
    assert_eq!(sent, [format!("publish room:1002 {data}"), success.to_owned()]);
    let moved = client.text(r#"{"op":"join","room_id":7}"#);
    assert_eq!(moved, ["-room:1002", "+room:7", r#"context {"room":7}"#, success]);
    assert_eq!(client.text(r#"{"op":"quit"}"#), ["-room:7", "context {}", success]);
    assert_eq!(client.text(r#"{"op":"join","room_id":"no room"}"#)[0], "failed 1 subscribe");
}
