//! Messages of queue topics, as their consumers get them whichever protocol they are from (connmix
//! sections 3.1 and 3.4).
//!
//! Costs: an event is one allocation.

use bytes::Bytes;

use crate::wire::http::answer::decimal;
use crate::wire::json::quoted;
use crate::wire::websocket::{self, Opcode};

/// Bytes of the name of a queue topic (section 3.1).
pub(crate) const TOPIC_BYTES_MAX: usize = 255;

/// Whether this may be the name of a queue topic (section 3.1).
pub fn is_topic(name: &str) -> bool {
    (1..=TOPIC_BYTES_MAX).contains(&name.len())
}

/// An event as a WebSocket frame: what `client` pushed to `topic`. `d` is the text of a JSON value.
pub fn event(node: u16, client: i64, topic: &str, d: &str) -> Bytes {
    let (mut node_digits, mut client_digits) = ([0; 20], [0; 20]);
    websocket::frame_of(
        Opcode::Text,
        &[
            br#"{"e":"queue.pop","p":{"n":"#,
            decimal(node.into(), &mut node_digits),
            br#","c":""#,
            decimal(client.unsigned_abs(), &mut client_digits),
            br#"","t":"#,
            quoted(topic).as_bytes(),
            br#","d":"#,
            d.as_bytes(),
            br#"},"id":null}"#,
        ],
    )
}

/// The JSON text of an event's frame.
pub fn event_text(frame: &Bytes) -> Bytes {
    let header = match frame.get(1) {
        None => 0,
        Some(0..=125) => 2,
        Some(126) => 4,
        Some(_) => 10,
    };
    frame.slice(header.min(frame.len())..)
}

/// The frame of an event's JSON text; `None` if it is not UTF-8, which WebSocket forbids.
pub fn event_frame(text: &[u8]) -> Option<Bytes> {
    simdutf8::basic::from_utf8(text).ok()?;
    Some(websocket::frame(Opcode::Text, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_made_again_from_its_text() {
        for len in [0, 10, 200, 65_000, 66_000] {
            let frame = event(7, 12345, "topic", &format!("\"{}\"", "x".repeat(len)));
            let text = event_text(&frame);
            assert!(text.starts_with(b"{\"e\":") && text.ends_with(b"\"id\":null}"));
            assert_eq!(event_frame(&text), Some(frame));
        }
        assert_eq!(event_text(&Bytes::new()), Bytes::new());
        assert_eq!(event_frame(b"\xff"), None);
    }
}
