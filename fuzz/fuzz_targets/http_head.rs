//! Bytes of a client through the HTTP head parser: in one piece and in pieces of the size that the
//! first byte of the input chooses, which must come to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::wire::http::{HEAD_BYTES_MAX, Head, accept_key, parse, resume};

fuzz_target!(|input: &[u8]| {
    let [step, stream @ ..] = input else { return };
    let step = usize::from(*step).max(1);
    let mut seen = 0;
    let mut in_pieces = None;
    while in_pieces.is_none() && seen < stream.len() {
        let end = (seen + step).min(stream.len());
        in_pieces = outcome(&resume(&stream[..end], seen));
        seen = end;
    }
    assert_eq!(outcome(&parse(stream)), in_pieces);
});

/// `None` while the head is incomplete; its target and length, or the status of the refusal.
fn outcome(head: &Head<'_>) -> Option<Result<(Vec<u8>, usize), u16>> {
    match head {
        Head::Partial => None,
        Head::Complete { request, len } => {
            assert!(*len <= HEAD_BYTES_MAX);
            assert!(request.path.len() + request.query.len() <= request.target.len());
            accept_key(request.header("Sec-WebSocket-Key").unwrap_or_default());
            request.has_token("Connection", "upgrade");
            Some(Ok((request.target.to_vec(), *len)))
        }
        Head::Bad => Some(Err(400)),
        Head::TooLarge => Some(Err(431)),
    }
}
