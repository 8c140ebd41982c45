//! Bytes of a client through the HTTP head parser: in one piece and in pieces of the size that the
//! first byte of the input chooses, which must come to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::wire::http::fault::Fault;
use ringway::wire::http::{HEAD_BYTES_MAX, accept_key, head};

fuzz_target!(|input: &[u8]| {
    let [step, stream @ ..] = input else { return };
    let step = usize::from(*step).max(1);
    let mut seen = 0;
    let mut in_pieces = None;
    while in_pieces.is_none() && seen < stream.len() {
        let end = (seen + step).min(stream.len());
        in_pieces = outcome(&stream[..end], seen);
        seen = end;
    }
    assert_eq!(outcome(stream, 0), in_pieces);
});

/// `None` while the head is incomplete; its target and length, or why it is refused.
fn outcome(bytes: &[u8], seen: usize) -> Option<Result<(Vec<u8>, usize), Fault>> {
    let result = head(bytes, seen).transpose()?;
    Some(result.map(|(request, len)| {
        assert!(len <= HEAD_BYTES_MAX && bytes[..len].ends_with(b"\r\n\r\n"));
        assert!(request.query.len() <= request.target.len());
        assert!(request.is_1_0 || !request.host.is_empty());
        accept_key(request.header("Sec-WebSocket-Key").unwrap_or_default());
        request.has_token("Connection", "upgrade");
        (request.target.to_vec(), len)
    }))
}
