//! The push service over HTTP: `POST /v1/internal/conn/<method>` with the same messages.
//!
//! Invariant: an answer is always protobuf: the method's message with 200, else a CommonResp that
//! says what is wrong. Costs: as the gRPC service.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt;
use prost::Message;

use super::{Pushes, Refusal};
use crate::wire::xxim::code;
use crate::wire::xxim::proto as pb;

const PROTOBUF: &str = "application/x-protobuf";
/// A body of up to so many times its limit is read away before it is refused.
const READ_AWAY_MAX: usize = 8;

/// The routes.
pub(super) fn routes(pushes: Pushes) -> Router {
    let bytes_max = pushes.settings.request_bytes_max as usize;
    Router::new()
        .route("/v1/internal/conn/sendMsg", post(send))
        .route("/v1/internal/conn/getUserConn", post(get))
        .route("/v1/internal/conn/kickUserConn", post(kick))
        .route("/v1/internal/conn/keepAlive", post(keep_alive))
        .layer(DefaultBodyLimit::max(bytes_max))
        .layer(middleware::from_fn_with_state(bytes_max, bounded))
        .with_state(pushes)
}

/// Refuses a body that is announced as too large. It is read away first, unless it is much too
/// large: an answer in front of it would be lost with the connection while the peer still writes.
async fn bounded(State(bytes_max): State<usize>, request: Request, next: Next) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let Some(length) = length.filter(|length| *length > bytes_max) else {
        return next.run(request).await;
    };
    if length <= bytes_max.saturating_mul(READ_AWAY_MAX) {
        let mut pieces = request.into_body().into_data_stream();
        while pieces.next().await.is_some_and(|piece| piece.is_ok()) {}
    }
    let text = format!("the body has {length} bytes, xxim.push.request_bytes_max is {bytes_max}");
    refusal(StatusCode::PAYLOAD_TOO_LARGE, code::REQUEST, &text)
}

async fn send(State(pushes): State<Pushes>, body: Bytes) -> Response {
    match pb::SendMsgReq::decode(body) {
        Ok(request) => answer(pushes.send(request).await),
        Err(_) => undecodable(),
    }
}

async fn get(State(pushes): State<Pushes>, body: Bytes) -> Response {
    match pb::GetUserConnReq::decode(body) {
        Ok(request) => answer(pushes.get(request).await),
        Err(_) => undecodable(),
    }
}

async fn kick(State(pushes): State<Pushes>, body: Bytes) -> Response {
    match pb::KickUserConnReq::decode(body) {
        Ok(request) => answer(pushes.kick(request).await),
        Err(_) => undecodable(),
    }
}

async fn keep_alive(body: Bytes) -> Response {
    match pb::KeepAliveReq::decode(body) {
        Ok(_) => answer(Ok(pb::KeepAliveResp::default())),
        Err(_) => undecodable(),
    }
}

fn answer(answer: Result<impl Message, Refusal>) -> Response {
    match answer {
        Ok(answer) => protobuf(StatusCode::OK, &answer),
        Err(Refusal::NoAnswer) => {
            refusal(StatusCode::SERVICE_UNAVAILABLE, code::RETRY, &Refusal::NoAnswer.to_string())
        }
        Err(refused) => refusal(StatusCode::BAD_REQUEST, code::REQUEST, &refused.to_string()),
    }
}

fn undecodable() -> Response {
    refusal(StatusCode::BAD_REQUEST, code::REQUEST, "the body is not the message of this method")
}

/// An answer that only says what is wrong.
pub(super) fn refusal(status: StatusCode, code: i32, text: &str) -> Response {
    protobuf(status, &pb::CommonResp { code, msg: Some(text.to_owned()), ..Default::default() })
}

fn protobuf(status: StatusCode, message: &impl Message) -> Response {
    (status, [(header::CONTENT_TYPE, PROTOBUF)], message.encode_to_vec()).into_response()
}
