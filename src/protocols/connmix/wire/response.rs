//! Answers (connmix sections 1.5 and 1.9).

use bytes::Bytes;

use super::{Code, Fault};
use crate::wire::http::answer::decimal;
use crate::wire::json::quoted;
use crate::wire::websocket::{self, Opcode};

/// What a request led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `{"s":true}`
    Done,
    /// Of `mesh.publish`: connections that were reached, and those that could not take it.
    Counts { reached: u64, failed: u64 },
    /// Of `server.ping`.
    Pong,
    /// An error.
    Error { code: Code, message: &'static str },
}

impl From<Fault> for Answer {
    fn from(Fault(message): Fault) -> Answer {
        Answer::Error { code: Code::InvalidParameter, message }
    }
}

impl Answer {
    /// Whether the request was malformed (section 1.9: there is a budget for those).
    pub fn is_fault(&self) -> bool {
        matches!(self, Answer::Error { code: Code::InvalidParameter, .. })
    }

    /// Appends the members of the answer, without braces and id.
    fn write(&self, out: &mut Vec<u8>) {
        let mut number = [0; 20];
        match self {
            Answer::Done => out.extend_from_slice(br#""E":null,"r":{"s":true}"#),
            Answer::Pong => out.extend_from_slice(br#""E":null,"r":{"m":"server.pong"}"#),
            Answer::Counts { reached, failed } => {
                out.extend_from_slice(br#""E":null,"r":{"s":"#);
                out.extend_from_slice(decimal(*reached, &mut number));
                out.extend_from_slice(br#","f":"#);
                out.extend_from_slice(decimal(*failed, &mut number));
                out.push(b'}');
            }
            Answer::Error { code, message } => {
                out.extend_from_slice(br#""E":{"c":"#);
                out.extend_from_slice(decimal(*code as u64, &mut number));
                out.extend_from_slice(br#","m":"#);
                out.extend_from_slice(quoted(message).as_bytes());
                out.push(b'}');
            }
        }
    }
}

/// Bytes of the longest answer, without its id.
const ANSWER_BYTES: usize = 96;

/// An answer as a WebSocket frame. `id` is the token of the request.
pub fn text_frame(answer: Answer, id: &str) -> Bytes {
    let mut body = Vec::with_capacity(ANSWER_BYTES + id.len());
    body.push(b'{');
    answer.write(&mut body);
    websocket::frame_of(Opcode::Text, &[&body, br#","i":"#, id.as_bytes(), b"}"])
}

/// An answer as the body of an HTTP response, which has no id.
pub fn http_body(answer: Answer) -> Vec<u8> {
    let mut body = Vec::with_capacity(ANSWER_BYTES);
    body.push(b'{');
    answer.write(&mut body);
    body.push(b'}');
    body
}
