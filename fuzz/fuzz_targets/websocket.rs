//! Bytes of a client through the WebSocket decoder: in one piece and in pieces with pauses, which
//! must give the same events. The first bytes of the input choose the rules and the pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::wire::deflate::Inflater;
use ringway::wire::websocket::{
    CloseCodes, Decoder, Event, Opcode, Rules, Violation, close, close_echo, pong,
};

const OVERHEAD_BYTES_MAX: usize = 16 * 1024;

/// The events of a stream as (kind, payload), and how it ended.
type Seen = (Vec<(u8, Vec<u8>)>, Option<Violation>);

fuzz_target!(|input: &[u8]| {
    let [limit, flags, step, stream @ ..] = input else { return };
    let close_codes = if flags & 4 != 0 { CloseCodes::Netsvr } else { CloseCodes::Registered };
    let message_bytes_max = u32::from(*limit) * 64;
    let rules = Rules { message_bytes_max, deflate: flags & 1 != 0, close_codes };
    let whole = decode(stream, rules, stream.len().max(1), false);
    let pieces = decode(stream, rules, usize::from(*step).max(1), flags & 2 != 0);
    assert_eq!(whole, pieces);
});

fn decode(stream: &[u8], rules: Rules, step: usize, pause: bool) -> Seen {
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::new());
    let mut events = Vec::new();
    for piece in stream.chunks(step) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match decoder.next(&mut input, rules, &mut inflater) {
                Ok(Some(event)) => events.push(seen(event)),
                Ok(None) => break,
                Err(violation) => {
                    close(violation.code, violation.reason);
                    return (events, Some(violation));
                }
            }
            if pause {
                decoder.stash(input);
                input = &mut [];
            }
        }
        let max = rules.message_bytes_max as usize + OVERHEAD_BYTES_MAX;
        assert!(pause || decoder.held() <= max, "{} bytes are held", decoder.held());
    }
    (events, None)
}

fn seen(event: Event<'_>) -> (u8, Vec<u8>) {
    match event {
        Event::Message { opcode: Opcode::Text, data } => {
            assert!(std::str::from_utf8(data).is_ok());
            (1, data.to_vec())
        }
        Event::Message { opcode: Opcode::Binary, data } => (2, data.to_vec()),
        Event::Close(data) => (8, close_echo(data).to_vec()),
        Event::Ping(data) => (9, pong(data).to_vec()),
        Event::Pong(data) => (10, data.to_vec()),
    }
}
