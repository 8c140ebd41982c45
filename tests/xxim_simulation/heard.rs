//! What a client of a story got, read as it would read it.

use std::collections::{HashMap, VecDeque};

use prost::Message;
use ringway::protocols::xxim::wire::proto as pb;
use ringway::sim::REFUSED;

use crate::{Client, Keys};

/// What a client got.
#[derive(Default)]
pub struct Heard {
    /// Codes of responses by reqId.
    pub codes: HashMap<String, i32>,
    pub pushes: Vec<u32>,
    pub close: Option<(u16, String)>,
}

/// What stands in the bytes that a client got, read under the keys that it had told by then.
pub fn heard(client: &Client, written: &[u8]) -> Heard {
    let mut heard = Heard::default();
    let Some(end) = written.windows(4).position(|four| four == b"\r\n\r\n") else { return heard };
    assert!(written.starts_with(b"HTTP/1.1 101 "));
    let mut rest = &written[end + 4..];
    let (mut keys, mut changes): (Keys, _) = (None, client.changes.clone());
    let mut greeted = false;
    while let Some((first, payload, used)) = frame(rest) {
        rest = &rest[used..];
        assert!(heard.close.is_none(), "{first:x} behind the close frame");
        match first {
            0x81 => {
                assert!(payload == b"connected" && !std::mem::replace(&mut greeted, true));
            }
            0x88 => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                let text = payload.get(2..).unwrap_or_default();
                heard.close = Some((code, String::from_utf8_lossy(text).into_owned()));
            }
            0x82 => {
                assert!(greeted, "the greeting is first");
                if let Some((req_id, next)) = changes.front()
                    && let Some(response) = read(next, payload).and_then(|push| response(&push))
                    && response.req_id == *req_id
                    && response.code == 0
                {
                    keys.clone_from(next);
                    changes.pop_front();
                    assert_eq!(heard.codes.insert(response.req_id, 0), None, "a second answer");
                    continue;
                }
                let push = read(&keys, payload).expect("a message under the keys of its time");
                match response(&push) {
                    Some(response) => hear(client, response, &mut changes, &mut heard),
                    None => {
                        let number = push.data.first_chunk().expect("a number");
                        heard.pushes.push(u32::from_be_bytes(*number));
                    }
                }
            }
            other => panic!("a frame {other:x}"),
        }
    }
    assert!(heard.close.as_ref().is_none_or(known), "{:?}", heard.close);
    heard
}

fn hear(
    client: &Client,
    response: pb::ResponseBody,
    changes: &mut VecDeque<(String, Keys)>,
    heard: &mut Heard,
) {
    // To what was no request.
    if response.req_id.is_empty() {
        assert_eq!(response.code, 2);
        return;
    }
    assert!(client.asked.contains(&response.req_id), "{} was not asked", response.req_id);
    if response.code != 0 {
        let resp = pb::CommonResp::decode(response.data).expect("a CommonResp");
        assert_eq!(resp.code, response.code);
    }
    changes.retain(|(req_id, _)| *req_id != response.req_id);
    let before = heard.codes.insert(response.req_id, response.code);
    assert_eq!(before, None, "a second answer");
}

/// Closes that the stories bring about.
fn known((code, text): &(u16, String)) -> bool {
    let known: [(u16, &str); 7] = [
        (1000, "duplicate connection"),
        (1000, ""),
        (1001, "server shutdown"),
        (1008, "protocol error"),
        (3000, REFUSED),
        (3001, "rsa decrypt failed"),
        (3003, "deviceId failed"),
    ];
    known.contains(&(*code, text)) || (*code, &**text) == (3002, "platform failed")
}

fn read(keys: &Keys, payload: &[u8]) -> Option<pb::PushBody> {
    let mut message = payload.to_vec();
    if let Some(keys) = keys {
        let len = keys.decrypt(&mut message).ok()?;
        message.truncate(len);
    }
    pb::PushBody::decode(&*message).ok()
}

fn response(push: &pb::PushBody) -> Option<pb::ResponseBody> {
    let response = pb::ResponseBody::decode(push.data.clone()).ok();
    response.filter(|_| push.event == 2)
}

/// First byte, payload and length of the first frame.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (start, len) = match *bytes {
        [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
        [_, len @ 0..126, ..] => (2, usize::from(len)),
        _ => return None,
    };
    Some((bytes[0], bytes.get(start..start + len)?, start + len))
}
