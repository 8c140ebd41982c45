//! What threads tell shards about connmix, and what shards ask of its service.

use std::time::Duration;

use bytes::Bytes;

use crate::hub::ConnId;

/// A letter to connmix or its API.
#[derive(Debug)]
pub enum Letter {
    /// What became of [`ServiceRequest::HttpCall`]: the body of a good answer.
    HttpCalled { conn: ConnId, answer: Option<Bytes> },
    /// The metrics as text, for [`ServiceRequest::Metrics`] of this number.
    Rendered { number: u64, text: String },
}

/// What a shard asks of the service of connmix. The answer comes as a [`Letter`].
#[derive(Debug)]
pub enum ServiceRequest {
    /// Make this request for a connmix rule. Answered by [`Letter::HttpCalled`].
    HttpCall { conn: ConnId, call: Box<HttpCall> },
    /// The metrics as text. Answered by [`Letter::Rendered`].
    Metrics { shard: u8, number: u64 },
}

/// A request that a connmix rule makes.
#[derive(Debug)]
pub struct HttpCall {
    pub method: Box<str>,
    pub url: String,
    pub body: Bytes,
    pub content_type: Box<str>,
    /// For everything from the name lookup to the last byte of the answer.
    pub timeout: Duration,
    /// Longest answer that is read; 0: none is.
    pub answer_bytes_max: usize,
}
