//! The push service over HTTP: `POST /v1/internal/conn/<method>` with the same messages.
//!
//! Invariant: an answer is always protobuf: the method's message with 200, else a CommonResp that
//! says what is wrong. Costs: as the gRPC service.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use prost::Message;

use super::{Pushes, Refusal};
use crate::wire::xxim::code;
use crate::wire::xxim::proto as pb;

const PROTOBUF: &str = "application/x-protobuf";

/// The routes.
pub(super) fn routes(pushes: Pushes) -> Router {
    let bytes_max = pushes.settings.request_bytes_max as usize;
    Router::new()
        .route("/v1/internal/conn/sendMsg", post(send))
        .route("/v1/internal/conn/getUserConn", post(get))
        .route("/v1/internal/conn/kickUserConn", post(kick))
        .route("/v1/internal/conn/keepAlive", post(keep_alive))
        .layer(DefaultBodyLimit::max(bytes_max))
        .with_state(pushes)
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
