//! What an upstream is told about a request in headers (xxim section 4.4).
//!
//! Invariant: a header value has visible ASCII only. Everything else that a client says is
//! percent-encoded, `%` included, so that no client can add a header, end the head, or be mistaken
//! for somebody else. Costs: the headers of an identity are written once per change of it; a
//! request adds two.

use std::fmt::Write;

use bytes::Bytes;

use crate::hub::ConnId;
use crate::protocols::xxim::limits::UPSTREAM_HEAD_BYTES_MAX;
use crate::protocols::xxim::wire::Identity;

/// Bytes of a reqId that are shown; the whole of it returns to the client in any case.
const REQ_ID_BYTES_MAX: usize = 256;
/// Room for the request line and the headers that no client decides about.
const HEAD_BYTES_OWN: usize = 1024;

/// Header lines that tell who asks, each with CRLF. `None` if they are too long for a head.
pub(super) fn identity_lines(conn: ConnId, identity: &Identity) -> Option<Bytes> {
    let mut lines = Vec::with_capacity(512);
    let mut complete = true;
    identity_headers(conn, identity, |name, value| {
        complete &= lines.len() + value.len() < UPSTREAM_HEAD_BYTES_MAX - HEAD_BYTES_OWN;
        if complete {
            lines.extend_from_slice(name.as_bytes());
            lines.extend_from_slice(b": ");
            push_encoded(&mut lines, value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
    });
    let fits = lines.len() <= UPSTREAM_HEAD_BYTES_MAX - HEAD_BYTES_OWN;
    (complete && fits).then(|| Bytes::from(lines))
}

/// Calls `tell` with every header of an identity that has a value, the value as it is.
pub(super) fn identity_headers(
    conn: ConnId,
    identity: &Identity,
    mut tell: impl FnMut(&'static str, &str),
) {
    let id = u64::from(conn.generation()) << 32 | u64::from(conn.index());
    let user = if identity.logged_in() { &*identity.user_id } else { "" };
    let headers = [
        ("X-Xxim-Conn-Id", &*id.to_string()),
        ("X-Xxim-User-Id", user),
        ("X-Xxim-Token", &*identity.token),
        ("X-Xxim-Platform", &*identity.platform),
        ("X-Xxim-Device-Id", &*identity.device_id),
        ("X-Xxim-Package-Id", &*identity.package_id),
        ("X-Xxim-Device-Model", &*identity.device_model),
        ("X-Xxim-Os-Version", &*identity.os_version),
        ("X-Xxim-App-Version", &*identity.app_version),
        ("X-Xxim-Language", &*identity.language),
        ("X-Xxim-Network", &*identity.network_used),
        ("X-Xxim-Ip", &*identity.ip),
        ("X-Xxim-User-Agent", &*identity.user_agent),
    ];
    headers.into_iter().filter(|(_, value)| !value.is_empty()).for_each(|(n, v)| tell(n, v));
}

/// The reqId as a header value.
pub(super) fn req_id(req_id: &[u8]) -> &[u8] {
    &req_id[..req_id.len().min(REQ_ID_BYTES_MAX)]
}

/// Appends a text in visible ASCII.
pub(super) fn push_encoded(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        match byte {
            b'%' => out.extend_from_slice(b"%25"),
            0x21..=0x7e => out.push(byte),
            _ => {
                let [high, low] = [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]);
                out.extend_from_slice(&[b'%', high, low]);
            }
        }
    }
}

/// A new `traceparent` (W3C Trace Context, level 1), not sampled.
pub(super) fn traceparent() -> String {
    let mut text = String::with_capacity(55);
    // Ids of zeros only are invalid.
    let (trace, span) = (fastrand::u128(1..), fastrand::u64(1..));
    let _ = write!(text, "00-{trace:032x}-{span:016x}-00");
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &str) -> String {
        let mut out = Vec::new();
        push_encoded(&mut out, text.as_bytes());
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn what_is_not_visible_ascii_is_percent_encoded() {
        assert_eq!(encoded("DeviceModel"), "DeviceModel");
        assert_eq!(encoded("a b"), "a%20b");
        assert_eq!(encoded("100%"), "100%25");
        assert_eq!(encoded("a\r\nX-Admin: 1"), "a%0D%0AX-Admin:%201");
        assert_eq!(encoded("\u{8d3a}"), "%E8%B4%BA");
        assert_eq!(encoded("\0\x7f"), "%00%7F");
    }

    #[test]
    fn values_that_are_missing_have_no_header_and_long_ones_are_refused() {
        let conn = ConnId::new(1, 2, 3);
        let mut identity = Identity { token: "t".into(), ..Identity::default() };
        let lines = identity_lines(conn, &identity).expect("short");
        let id = 3u64 << 32 | 1 << 24 | 2;
        assert_eq!(lines, format!("X-Xxim-Conn-Id: {id}\r\nX-Xxim-Token: t\r\n"));
        identity.device_model = "\u{1}".repeat(20_000);
        assert_eq!(identity_lines(conn, &identity), None);
        identity.device_model = "m".repeat(40_000);
        assert_eq!(identity_lines(conn, &identity), None);
    }

    #[test]
    fn traceparents_are_valid_and_differ() {
        let one = traceparent();
        let parts: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2]);
        assert_ne!(one, traceparent());
    }

    proptest! {
        #[test]
        fn no_text_adds_a_line(values in proptest::collection::vec(any::<String>(), 4)) {
            let identity = Identity {
                user_id: values[0].clone(),
                token: values[1].clone(),
                user_agent: values[2].clone(),
                platform: values[3].clone(),
                ..Identity::default()
            };
            if let Some(lines) = identity_lines(ConnId::new(0, 0, 1), &identity) {
                let filled = values.iter().filter(|value| !value.is_empty()).count();
                let text = std::str::from_utf8(&lines).expect("ASCII");
                prop_assert_eq!(text.matches("\r\n").count(), filled + 1);
                prop_assert!(text.bytes().all(|b| matches!(b, 0x20..=0x7e | b'\r' | b'\n')));
                let values = text.split_terminator("\r\n").map(|l| l.split_once(": ").map(|l| l.1));
                let mut values = values.into_iter();
                prop_assert!(values.all(|value| value.is_some_and(|v| !v.contains(' '))));
            }
        }
    }
}
