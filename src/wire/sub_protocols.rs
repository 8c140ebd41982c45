//! The sub-protocols that a WebSocket client offers, and how it is told which one was accepted
//! (RFC 6455 sections 4.1, 4.2.2 and 11.3.4). A browser that offers some and is told none gives
//! the connection up.
//!
//! Costs: no allocation.

use crate::wire::http::{Request, is_token_byte};

const NAME: &str = "Sec-WebSocket-Protocol";

/// What is offered, in the client's order of preference. The lines of the header are one list, of
/// which empty elements are no part (RFC 9110 section 5.6.1); what is not a token can not be
/// accepted, for it would stand in the response.
pub fn offered<'a>(request: &Request<'a>) -> impl Iterator<Item = &'a [u8]> {
    request.elements(NAME).filter(|name| name.iter().all(|byte| is_token_byte(*byte)))
}

/// Appends the header line that tells the client what was accepted, if something was.
pub fn tell(response: &mut Vec<u8>, accepted: Option<&[u8]>) {
    let Some(accepted) = accepted else { return };
    response.extend_from_slice(NAME.as_bytes());
    response.extend_from_slice(b": ");
    response.extend_from_slice(accepted);
    response.extend_from_slice(b"\r\n");
}
