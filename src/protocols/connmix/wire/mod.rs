//! connmix's API: requests as JSON texts, and answers (connmix sections 1 to 5).
//!
//! Invariants: every request, whatever its bytes, gives exactly one [`Envelope`], and with it one
//! answer; ids of clients are integers of 64 bits and never pass through a float; the id of a
//! request comes back byte for byte.
//! Costs: a request is read where it lies; an answer is one allocation.

mod request;
mod response;

pub use request::{ApiRequest, Call, Envelope, Fault, envelope, publish, send};
pub use response::{Answer, http_body, text_frame};

/// `E.c` of an error (section 1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    InvalidParameter = 101,
    ConsumeFailed = 201,
    AlreadyConsuming = 202,
    NotConsuming = 203,
    CallFailed = 301,
    SendFailed = 401,
}
