//! The HTTP server machine: requests come out the same however the bytes are cut, a body is never
//! taken for a request, and whoever else reads the same bytes sees the same requests.

use std::borrow::Cow;

use proptest::prelude::*;
use ringway::wire::http::fault::Fault;
use ringway::wire::http::machine::{Event, Machine};

#[path = "http_machine/generated.rs"]
mod generated;
#[path = "http_machine/hyper.rs"]
mod other;
#[path = "http_machine/rules.rs"]
mod rules;

/// Bytes that a body may have.
const BODY_BYTES_MAX: usize = 1000;

/// One request with its body, as a test compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub method: String,
    pub target: Vec<u8>,
    pub host: Vec<u8>,
    pub ends: bool,
    /// Names in lower case, in the order of the lines.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// What a stream of bytes comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    pub requests: Vec<Read>,
    /// How often the client was asked for its body.
    pub asked: usize,
    pub fault: Option<Fault>,
    /// A request is not complete.
    pub partial: bool,
}

impl Story {
    fn event(&mut self, event: Event<'_>, begun: &mut Option<Read>) {
        match event {
            Event::Request(request) => {
                assert!(begun.is_none(), "a request begins inside of another");
                *begun = Some(Read {
                    method: request.method.to_owned(),
                    target: request.target.to_vec(),
                    host: request.host.to_vec(),
                    ends: request.manner().ends,
                    headers: request
                        .headers()
                        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
                        .collect(),
                    body: Vec::new(),
                });
            }
            Event::Expect => self.asked += 1,
            Event::Body(body) => {
                let mut read = begun.take().expect("a body belongs to a request");
                read.body = body.into_owned();
                self.requests.push(read);
            }
            Event::Refuse(fault) => self.fault = Some(fault),
        }
    }
}

/// Reads pieces of a stream, as a connection does.
pub fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Story {
    let (mut machine, mut story, mut begun) = (Machine::default(), Story::default(), None);
    for piece in pieces {
        let bytes: Cow<'_, [u8]> = machine.resume(piece);
        let mut rest = &*bytes;
        while let Some(event) = machine.next(&mut rest, BODY_BYTES_MAX) {
            story.event(event, &mut begun);
        }
        let unread = rest.len();
        machine.keep(bytes, unread);
    }
    story.partial = machine.is_partial();
    assert_eq!(story.fault.is_some(), machine.is_over());
    story
}

proptest! {
    #[test]
    fn requests_are_the_same_however_the_bytes_are_cut(
        stream in generated::stream(),
        cuts in prop::collection::vec(1..60_usize, 1..40),
    ) {
        let whole = read(std::iter::once(&*stream));
        let mut rest = &*stream;
        let mut sizes = cuts.iter().cycle();
        let pieces = std::iter::from_fn(|| {
            let size = (*sizes.next()?).min(rest.len());
            let (piece, after) = rest.split_at(size);
            rest = after;
            (size > 0).then_some(piece)
        });
        // Whether a client is asked for its body depends on what has come with its head.
        let in_pieces = Story { asked: whole.asked, ..read(pieces) };
        prop_assert_eq!(in_pieces, whole);
    }

    /// The last request of a stream that is cut off is never one that nobody has sent.
    #[test]
    fn a_beginning_of_a_stream_has_a_beginning_of_its_requests(stream in generated::stream()) {
        let whole = read(std::iter::once(&*stream));
        for end in 0..stream.len() {
            let part = read(std::iter::once(&stream[..end]));
            prop_assert!(part.requests.len() <= whole.requests.len());
            prop_assert_eq!(&part.requests[..], &whole.requests[..part.requests.len()]);
            prop_assert!(part.fault.is_none() || part.fault == whole.fault);
        }
    }
}
