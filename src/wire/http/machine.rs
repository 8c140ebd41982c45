//! The server of HTTP/1.1 as a state machine: bytes of a connection in, requests out, each with its
//! whole body (RFC 9112).
//!
//! Invariants: what was announced as a body is read as one, or nothing is read any more: it is
//! never taken for a request, whoever answers early. Behind a request that can not be understood
//! nothing is read. However the bytes are cut, the same requests come out.
//!
//! Costs: a request that lies complete in what arrived is not copied; of any other the head is kept
//! until it is complete, then the body is collected. Nothing is kept between two requests.

use std::borrow::Cow;

use super::body::{Body, Framing};
use super::fault::Fault;
use super::{Request, head};

/// The bytes that ask a client for the body it announced (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a connection has said.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request begins. Its body follows, also where it has none.
    Request(Request<'a>),
    /// The client sends its body when it is asked to, with [`CONTINUE`]. Who does not want it
    /// answers instead and [ends](Machine::end).
    Expect,
    /// The whole body: the request is complete.
    Body(Cow<'a, [u8]>),
    /// What can not be read. Nothing is read any more.
    Refuse(Fault),
}

/// Reads the requests of one connection.
#[derive(Debug, Default)]
pub struct Machine {
    /// Bytes that are not read yet.
    kept: Vec<u8>,
    /// How many of them were searched for the end of a head.
    seen: usize,
    state: State,
    /// A request has begun that is not complete.
    partial: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// A body that was announced, of which nothing is read.
    Announced(Framing, Announced),
    /// In a body that arrives in pieces.
    Body(Box<Body>),
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Announced {
    bytes_max: usize,
    /// The client waits to be asked for it.
    expects: bool,
}

impl Machine {
    /// What is to be read: what was [kept](Machine::keep), and what arrived behind it.
    pub fn resume<'a>(&mut self, arrived: &'a [u8]) -> Cow<'a, [u8]> {
        if self.kept.is_empty() {
            return Cow::Borrowed(arrived);
        }
        let mut bytes = std::mem::take(&mut self.kept);
        bytes.extend_from_slice(arrived);
        Cow::Owned(bytes)
    }

    /// Reads on at the front of `input`. `None`: more bytes are needed, or none are wanted. The
    /// body of a request that begins here may have `body_bytes_max` bytes.
    pub fn next<'a>(&mut self, input: &mut &'a [u8], body_bytes_max: usize) -> Option<Event<'a>> {
        let result = match &mut self.state {
            State::Head => self.head(input, body_bytes_max),
            State::Announced(framing, announced) => {
                let (framing, announced) = (*framing, *announced);
                self.announced(framing, announced, input)
            }
            State::Body(body) => match body.read(input) {
                Ok(true) => Ok(Some(Event::Body(Cow::Owned(body.take())))),
                Ok(false) => Ok(None),
                Err(fault) => Err(fault),
            },
            State::Over => Ok(None),
        };
        let event = result.unwrap_or_else(|fault| Some(Event::Refuse(fault)));
        match event {
            Some(Event::Body(_)) => self.state = State::Head,
            Some(Event::Refuse(_)) => self.end(),
            _ => {}
        }
        self.partial = match self.state {
            State::Head => !matches!(event, Some(Event::Body(_))) && !input.is_empty(),
            State::Announced(..) | State::Body(_) => true,
            State::Over => false,
        };
        if matches!(self.state, State::Over) {
            *input = &[];
        }
        event
    }

    /// Keeps the last `unread` bytes of those that were to be read.
    pub fn keep(&mut self, bytes: Cow<'_, [u8]>, unread: usize) {
        self.kept = match bytes {
            Cow::Owned(bytes) if bytes.len() == unread => bytes,
            bytes => bytes[bytes.len() - unread..].to_vec(),
        };
    }

    /// Nothing is read any more.
    pub fn end(&mut self) {
        *self = Machine { state: State::Over, ..Machine::default() };
    }

    /// Whether nothing is read any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether a request has begun that is not complete: its time runs.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Bytes of requests that are kept.
    pub fn held(&self) -> usize {
        let body = match &self.state {
            State::Body(body) => body.bytes().len(),
            _ => 0,
        };
        self.kept.len() + body
    }

    fn head<'a>(
        &mut self,
        input: &mut &'a [u8],
        bytes_max: usize,
    ) -> Result<Option<Event<'a>>, Fault> {
        let seen = std::mem::take(&mut self.seen);
        let Some((request, len)) = head(input, seen)? else {
            self.seen = input.len();
            return Ok(None);
        };
        if matches!(request.framing, Framing::Length(length) if length > bytes_max) {
            return Err(Fault::Body);
        }
        *input = &input[len..];
        // RFC 9110 section 10.1.1: HTTP/1.0 does not know it.
        let expects = !request.is_1_0 && request.has_token("Expect", "100-continue");
        self.state = State::Announced(request.framing, Announced { bytes_max, expects });
        Ok(Some(Event::Request(request)))
    }

    fn announced<'a>(
        &mut self,
        framing: Framing,
        announced: Announced,
        input: &mut &'a [u8],
    ) -> Result<Option<Event<'a>>, Fault> {
        if let Framing::Length(length) = framing
            && let Some((body, rest)) = input.split_at_checked(length)
        {
            *input = rest;
            return Ok(Some(Event::Body(Cow::Borrowed(body))));
        }
        if announced.expects && input.is_empty() {
            let announced = Announced { expects: false, ..announced };
            self.state = State::Announced(framing, announced);
            return Ok(Some(Event::Expect));
        }
        if input.is_empty() {
            return Ok(None);
        }
        let mut body = Box::new(Body::new(framing, announced.bytes_max));
        if body.read(input)? {
            return Ok(Some(Event::Body(Cow::Owned(body.take()))));
        }
        self.state = State::Body(body);
        Ok(None)
    }
}
