//! BeforeRequest: whether a client that has logged in may call a method (xxim section 4.1, step 6).
//!
//! As the original: a code other than 0 is the answer, UNAUTHENTICATED (over HTTP 401)
//! ends the connection, and everything else means that nobody could say. One attempt. Costs: one
//! call.

use bytes::Bytes;
use prost::Message;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use tonic::Code;

use crate::hub::login::Permission;
use crate::limits::{CALLBACK_ANSWER_BYTES_MAX, LOGIN_MESSAGE_CHARS_MAX};
use crate::outside::callback::{Callback, Failure, PROTOBUF, Target};
use crate::outside::http_client;
use crate::protocols::xxim::wire::proto::{BeforeRequestReq, BeforeRequestResp, CommonReq};
use crate::protocols::xxim::wire::text::AUTH_FAILED;
use crate::protocols::xxim::wire::{Identity, common_req};

/// Asks.
pub(super) async fn ask(
    hook: &Callback,
    identity: &Identity,
    method: &str,
) -> Result<Permission, Failure> {
    let body = question(identity, method);
    match &hook.target {
        Target::Unset => Err(Failure::Unset),
        Target::Http(client, url) => {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, PROTOBUF), (ACCEPT, PROTOBUF)]);
            let response = client.post(url.clone(), headers, body, hook.deadline).await?;
            match response.status().as_u16() {
                200 => permission(http_client::body(response, CALLBACK_ANSWER_BYTES_MAX).await?),
                401 => Ok(Permission::Banned(AUTH_FAILED.to_owned())),
                _ => Err(Failure::Status(response.status())),
            }
        }
        Target::Grpc(channel, path) => match hook.call(channel, path, body).await? {
            Ok(answer) => permission(answer),
            Err(status) if status.code() == Code::Unauthenticated => {
                let told = match status.message() {
                    "" => AUTH_FAILED,
                    message => message,
                };
                Ok(Permission::Banned(told.chars().take(LOGIN_MESSAGE_CHARS_MAX).collect()))
            }
            Err(status) => Err(Failure::Grpc(status.code())),
        },
    }
}

fn question(identity: &Identity, method: &str) -> Bytes {
    // What was just encoded can be read.
    let common_req = CommonReq::decode(common_req(identity)).unwrap_or_default();
    let request = BeforeRequestReq { common_req: Some(common_req), method: method.to_owned() };
    request.encode_to_vec().into()
}

fn permission(answer: Bytes) -> Result<Permission, Failure> {
    let answer = BeforeRequestResp::decode(answer)
        .map_err(|error| Failure::Undecodable(error.to_string()))?;
    Ok(match answer.common_resp {
        Some(resp) if resp.code != 0 => {
            Permission::Refused { code: resp.code, data: resp.encode_to_vec().into() }
        }
        _ => Permission::Granted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::xxim::wire::proto::CommonResp;

    #[test]
    fn a_code_refuses_and_nonsense_is_no_permission() {
        assert_eq!(permission(Bytes::new()).ok(), Some(Permission::Granted));
        let resp = CommonResp { code: 9, msg: Some("no".into()), ..Default::default() };
        let data = Bytes::from(resp.encode_to_vec());
        let answer = BeforeRequestResp { common_resp: Some(resp) }.encode_to_vec();
        assert_eq!(permission(answer.into()).ok(), Some(Permission::Refused { code: 9, data }));
        assert!(permission(Bytes::from_static(b"\x0a")).is_err());
    }
}
