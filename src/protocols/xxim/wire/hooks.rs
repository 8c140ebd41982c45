//! What backends are told of connections: ConnParam and the messages of the hooks (specification
//! sections 2.7 and 5.2). Rare, so prost writes them.

use std::net::Ipv4Addr;

use bytes::Bytes;
use prost::Message;

use super::{Identity, proto};

/// The parameters of a connection as hooks get them, token and headers included, seeds never.
pub fn conn_param(identity: &Identity, pod: Ipv4Addr) -> proto::ConnParam {
    let pod_ip = if pod.is_unspecified() { String::new() } else { pod.to_string() };
    proto::ConnParam {
        user_id: identity.user_id.clone(),
        token: identity.token.clone(),
        device_id: identity.device_id.clone(),
        platform: identity.platform.clone(),
        ips: identity.ip.clone(),
        network_used: identity.network_used.clone(),
        headers: identity.headers.iter().cloned().collect(),
        pod_ip,
        ..proto::ConnParam::default()
    }
}

/// The body of AfterConnect; the time is Unix milliseconds.
pub fn after_connect(identity: &Identity, pod: Ipv4Addr, connected_ms: u64) -> Bytes {
    let request = proto::AfterConnectReq {
        conn_param: Some(conn_param(identity, pod)),
        connected_at: connected_ms.to_string(),
    };
    Bytes::from(request.encode_to_vec())
}

/// The body of AfterDisconnect.
pub fn after_disconnect(
    identity: &Identity,
    pod: Ipv4Addr,
    connected_ms: u64,
    disconnected_ms: u64,
) -> Bytes {
    let request = proto::AfterDisconnectReq {
        conn_param: Some(conn_param(identity, pod)),
        connected_at: connected_ms.to_string(),
        disconnected_at: disconnected_ms.to_string(),
    };
    Bytes::from(request.encode_to_vec())
}

/// A serialized RequestBody.
pub fn request_body(req_id: &str, method: &str, data: &[u8]) -> Bytes {
    let data = Bytes::copy_from_slice(data);
    let body = proto::RequestBody { req_id: req_id.to_owned(), method: method.to_owned(), data };
    Bytes::from(body.encode_to_vec())
}
