//! connmix's API: any message gives one envelope whose id can be echoed; bodies in chunks are the
//! same however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::protocols::connmix::wire::{self, Answer};
use ringway::wire::http::body::{Body, Framing};
use ringway::wire::json::Index;

fuzz_target!(|data: &[u8]| {
    let mut index = Index::default();
    let envelope = wire::envelope(data, &mut index);
    let answer = envelope.request.map_or_else(Answer::from, |_| Answer::Done);
    let frame = wire::text_frame(answer, envelope.id);
    assert!(Index::default().read(payload(&frame)).is_some(), "an answer is JSON");
    let _ = wire::send(data, &mut index);
    let _ = wire::publish(data, &mut index);
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut body = Body::new(Framing::Chunked, 4096);
        for mut piece in pieces {
            match body.read(&mut piece) {
                Ok(false) => {}
                end => return (Some(end), body.bytes().to_vec()),
            }
        }
        (None, body.bytes().to_vec())
    };
    let whole = read(&mut std::iter::once(data));
    assert_eq!(whole, read(&mut data.chunks(1)));
});

fn payload(frame: &[u8]) -> &[u8] {
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}
