//! Bytes of a connection through the HTTP server machine: in one piece and in pieces of the size
//! that the first byte of the input chooses come the same requests with the same bodies; nothing is
//! read behind what is refused, and no more is kept than a head and a body may have.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::wire::http::HEAD_BYTES_MAX;
use ringway::wire::http::machine::{Event, Machine};

const BODY_BYTES_MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let [step, stream @ ..] = input else { return };
    let step = usize::from(*step).max(1);
    let whole = read(std::iter::once(stream));
    assert_eq!(whole, read(stream.chunks(step)));
});

/// Each event as text, but for the question whether a body is to be sent, which depends on what has
/// come; and whether a request is incomplete.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
    let (mut machine, mut events, mut open) = (Machine::default(), Vec::new(), false);
    for piece in pieces {
        let bytes = machine.resume(piece);
        let mut rest = &*bytes;
        while let Some(event) = machine.next(&mut rest, BODY_BYTES_MAX) {
            match event {
                Event::Request(request) => {
                    assert!(!std::mem::replace(&mut open, true), "a request inside of another");
                    let headers: Vec<_> = request.headers().collect();
                    let line = (request.method, request.target, request.host, request.manner());
                    events.push(format!("{line:?} {headers:?}"));
                }
                Event::Expect => assert!(open, "nothing was announced"),
                Event::Body(body) => {
                    assert!(std::mem::take(&mut open), "a body without a request");
                    assert!(body.len() <= BODY_BYTES_MAX);
                    events.push(format!("{body:?}"));
                }
                Event::Refuse(fault) => {
                    assert!(machine.is_over());
                    events.push(format!("{fault:?}"));
                }
            }
        }
        let unread = rest.len();
        machine.keep(bytes, unread);
        assert!(machine.held() <= HEAD_BYTES_MAX + BODY_BYTES_MAX);
    }
    (events, machine.is_partial())
}
