//! Logins that a backend verifies: BeforeConnect over HTTP and gRPC (xxim section 5.2), and JSON
//! over HTTP (IM section 10).
//!
//! Invariant: only an answer lets a client in or keeps it out; whoever does not answer or makes no
//! sense is unavailable, except that JSON backends that are too slow or answer with anything else
//! refuse, as IM defines it. Costs: one call per login.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use reqwest::Url;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::{REFUSED, refused};
use crate::hub::login::{Login, Profile, Verdict};
use crate::limits::{CALLBACK_ANSWER_BYTES_MAX, LOGIN_MESSAGE_CHARS_MAX, LOGIN_TAGS_MAX};
use crate::outside::grpc;
use crate::outside::http_client::{self, HttpClient};
use crate::protocols::xxim::wire::proto::{BeforeConnectReq, BeforeConnectResp, ConnParam};
use crate::protocols::xxim::wire::text::LOGGED_IN_ELSEWHERE as ELSEWHERE;
use crate::wire::json::{self, push_texts};

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BEFORE_CONNECT: &str = "/pb.imService/BeforeConnect";

/// What a backend is asked (xxim vector V10u).
fn before_connect(login: &Login) -> Bytes {
    let param = ConnParam {
        user_id: login.user.clone(),
        token: login.token.clone(),
        device_id: login.device.clone(),
        platform: login.platform.clone(),
        ips: login.ip.clone(),
        network_used: login.network.clone(),
        headers: login.headers.iter().cloned().collect(),
        ..ConnParam::default()
    };
    BeforeConnectReq { conn_param: Some(param) }.encode_to_vec().into()
}

/// What it said.
fn verdict(answer: Bytes) -> Verdict {
    match BeforeConnectResp::decode(answer) {
        Ok(resp) if !resp.msg.is_empty() => told(&resp.msg),
        Ok(resp) if resp.code != 0 => refused(ELSEWHERE),
        Ok(_) => Verdict::Accepted { profile: None },
        Err(error) => Verdict::Unavailable(format!("no BeforeConnectResp: {error}")),
    }
}

fn told(message: &str) -> Verdict {
    refused(&message.chars().take(LOGIN_MESSAGE_CHARS_MAX).collect::<String>())
}

/// POST of a BeforeConnectReq to url/beforeConnect.
pub(super) async fn http(
    client: &HttpClient,
    url: &Url,
    login: &Login,
    timeout: Duration,
) -> Verdict {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, PROTOBUF), (ACCEPT, PROTOBUF)]);
    let mut url = url.clone();
    url.set_path(&format!("{}/beforeConnect", url.path().trim_end_matches('/')));
    let response = match client.post(url, headers, before_connect(login), timeout).await {
        Ok(response) => response,
        Err(failure) => return Verdict::Unavailable(failure.to_string()),
    };
    match response.status().as_u16() {
        200 => match http_client::body(response, CALLBACK_ANSWER_BYTES_MAX).await {
            Ok(answer) => verdict(answer),
            Err(failure) => Verdict::Unavailable(failure.to_string()),
        },
        401 | 403 => refused(REFUSED),
        status => Verdict::Unavailable(format!("status {status} instead of 200")),
    }
}

/// `/pb.imService/BeforeConnect`.
pub(super) async fn grpc(channel: Channel, login: &Login, timeout: Duration) -> Verdict {
    let request = Request::new(before_connect(login));
    let path = PathAndQuery::from_static(BEFORE_CONNECT);
    let call = grpc::unary(channel, path, request, CALLBACK_ANSWER_BYTES_MAX);
    match tokio::time::timeout(timeout, call).await {
        Err(_) => Verdict::Unavailable("no reply in time".to_owned()),
        Ok(Err(failure)) => Verdict::Unavailable(failure.to_string()),
        Ok(Ok(Ok(answer))) => verdict(answer),
        Ok(Ok(Err(status))) => match status.code() {
            // Its message is the reason: banned, closed, disabled (xxim section 1.8).
            Code::Unauthenticated if !status.message().is_empty() => told(status.message()),
            Code::Unauthenticated | Code::PermissionDenied => refused(REFUSED),
            code => Verdict::Unavailable(format!("gRPC status {code:?}")),
        },
    }
}

/// POST of JSON; 200 with `{"ok": true}` accepts.
pub(super) async fn json(
    client: &HttpClient,
    url: &Url,
    login: &Login,
    timeout: Duration,
) -> Verdict {
    let mut body = String::new();
    let members = [("token", &*login.token), ("userId", &login.user), ("remoteAddr", &login.ip)];
    push_texts(&mut body, members);
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON), (ACCEPT, JSON)]);
    let call = client.post(url.clone(), headers, Bytes::from(body), timeout);
    let response = match call.await {
        Ok(response) if http_client::is_ok(&response) => response,
        Ok(_) | Err(http_client::Failure::Timeout) => return refused(REFUSED),
        Err(failure) => return Verdict::Unavailable(failure.to_string()),
    };
    let Ok(answer) = http_client::body(response, CALLBACK_ANSWER_BYTES_MAX).await else {
        return refused(REFUSED);
    };
    let answer = json::tree(&answer).unwrap_or_default();
    if answer.get("ok") != Some(&Value::Bool(true)) {
        return refused(REFUSED);
    }
    Verdict::Accepted { profile: profile(&answer) }
}

/// The optional `level`, `nickname` and `tag` (a text or a list of texts).
fn profile(answer: &Value) -> Option<Profile> {
    let (level, nickname) = (answer.get("level"), answer.get("nickname"));
    let tag = answer.get("tag");
    if level.is_none() && nickname.is_none() && tag.is_none() {
        return None;
    }
    let tags = match tag {
        Some(Value::String(tag)) => vec![tag.clone()],
        Some(Value::Array(tags)) => {
            tags.iter().filter_map(Value::as_str).take(LOGIN_TAGS_MAX).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    let level = level.and_then(Value::as_u64).and_then(|level| u32::try_from(level).ok());
    Some(Profile {
        level: level.unwrap_or(0),
        nickname: nickname.and_then(Value::as_str).unwrap_or_default().to_owned(),
        tags,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_that_of_the_vector() {
        let login = Login {
            user: "test123456".into(),
            token: "tok.en.sig".into(),
            ip: "203.0.113.7".into(),
            platform: "windows".into(),
            device: "xxxx".into(),
            network: "NetworkUsed".into(),
            ..Login::default()
        };
        // xxim V10u.
        let expected = b"\x0a\x41\x0a\x0atest123456\x12\x0atok.en.sig\x1a\x04xxxx\x22\x07windows\
                         \x2a\x0b203.0.113.7\x32\x0bNetworkUsed";
        assert_eq!(before_connect(&login), expected.as_slice());
    }

    #[test]
    fn an_empty_answer_accepts_and_a_message_refuses() {
        assert_eq!(verdict(Bytes::new()), Verdict::Accepted { profile: None });
        let told = BeforeConnectResp { code: 0, msg: "token不存在".into() }.encode_to_vec();
        let message = "token不存在".to_owned();
        assert_eq!(verdict(told.into()), Verdict::Refused { code: 4, message });
        let silent = BeforeConnectResp { code: 7, msg: String::new() }.encode_to_vec();
        let message = ELSEWHERE.to_owned();
        assert_eq!(verdict(silent.into()), Verdict::Refused { code: 4, message });
        assert!(matches!(verdict(Bytes::from_static(b"\x0a")), Verdict::Unavailable(_)));
    }

    #[test]
    fn a_profile_is_what_is_there() {
        let read = |text: &str| profile(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(read(r#"{"ok":true}"#), None);
        let profile = read(r#"{"level":3,"nickname":"n","tag":["a",1,"b"]}"#).expect("a profile");
        assert_eq!((profile.level, &*profile.nickname), (3, "n"));
        assert_eq!(profile.tags, ["a", "b"]);
        assert_eq!(read(r#"{"tag":"vip","level":-1}"#).expect("a profile").tags, ["vip"]);
    }
}
