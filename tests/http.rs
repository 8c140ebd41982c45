//! HTTP on every port that speaks it: what is a request, what is refused, how it is answered. The
//! same rules hold for clients of each protocol, for xxim over HTTP and for the connmix API.

mod common;

#[path = "http/answers.rs"]
mod answers;
#[path = "http/requests.rs"]
mod requests;
#[path = "http/support.rs"]
mod support;
