//! xxim's messages between clients, the gateway and backends, sans-io (specification sections 2 to
//! 4, 6 and 7.2).
//!
//! Invariants: nothing here trusts a length from the network; what is written has exactly the size
//! that was computed for it. Costs: a request is slices of the message that it came in, a response
//! or push one allocation. [`proto`] has the messages as prost types; what is read and written per
//! message is coded by hand, and tested against them.

pub mod cipher;
mod common_req;
mod fields;
mod hooks;
mod identity;
mod params;
mod request;
mod response;
/// The TCP variant's frames.
pub mod tcp;

/// The messages as prost types, for whatever is not the data path.
#[allow(missing_docs)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
}

pub use common_req::{
    SEND_MSG_LIST, common_req, envelope, inject, inject_send_msg_list, strip, strip_send_msg_list,
};
pub use fields::Malformed;
pub use hooks::{after_connect, after_disconnect, conn_param, request_body};
pub use identity::Identity;
pub use params::{Leniency, PLATFORMS, Params, UserParams, V1_PLATFORM_BYTES_MAX};
pub use request::{
    ClientRequest, LocalMethod, METHOD_BYTES_MAX, Version, is_method, is_white, local_method,
};
pub use response::{
    Body, Carrier, EVENT_AFTER_CONNECT, EVENT_RESPONSE, GREETING, Push, Response, code,
    common_resp, default_text, head, text,
};
