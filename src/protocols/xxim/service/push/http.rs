//! The push service over HTTP: `POST /v1/internal/conn/<method>` with the same messages.
//!
//! Invariant: an answer is always protobuf: the method's message with 200, else a CommonResp that
//! says what is wrong. Costs: as the gRPC service.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt;
use prost::Message;

use super::{Pushes, Refusal};
use crate::protocols::xxim::wire::code;
use crate::protocols::xxim::wire::proto as pb;

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
        .method_not_allowed_fallback(only_post)
        .fallback(unknown)
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

async fn send(State(pushes): State<Pushes>, body: Body) -> Response {
    match read(body) {
        Ok(request) => answer(pushes.send(request).await),
        Err(unread) => unread.into_response(),
    }
}

async fn get(State(pushes): State<Pushes>, body: Body) -> Response {
    match read(body) {
        Ok(request) => answer(pushes.get(request).await),
        Err(unread) => unread.into_response(),
    }
}

async fn kick(State(pushes): State<Pushes>, body: Body) -> Response {
    match read(body) {
        Ok(request) => answer(pushes.kick(request).await),
        Err(unread) => unread.into_response(),
    }
}

async fn keep_alive(body: Body) -> Response {
    match read::<pb::KeepAliveReq>(body) {
        Ok(_) => answer(Ok(pb::KeepAliveResp::default())),
        Err(unread) => unread.into_response(),
    }
}

/// A body, or why there is none.
type Body = Result<Bytes, BytesRejection>;

/// Why a body gives no message.
struct Unread(StatusCode, String);

impl IntoResponse for Unread {
    fn into_response(self) -> Response {
        refusal(self.0, code::REQUEST, &self.1)
    }
}

fn read<M: Message + Default>(body: Body) -> Result<M, Unread> {
    let body = body.map_err(|why| Unread(why.status(), why.body_text()))?;
    M::decode(body).map_err(|_| {
        let text = "the body is not the message of this method";
        Unread(StatusCode::BAD_REQUEST, text.to_owned())
    })
}

/// What is none of the paths, or is one of gRPC without its content type.
async fn unknown(uri: Uri) -> Response {
    if uri.path().starts_with("/pb.connService/") {
        let text = "this is a path of gRPC: send content-type application/grpc";
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, code::REQUEST, text);
    }
    let text = "there is no such path: POST /v1/internal/conn/ and sendMsg, getUserConn, \
                kickUserConn or keepAlive";
    refusal(StatusCode::NOT_FOUND, code::REQUEST, text)
}

async fn only_post() -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, code::REQUEST, "send it with POST")
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

/// An answer that only says what is wrong.
pub(super) fn refusal(status: StatusCode, code: i32, text: &str) -> Response {
    protobuf(status, &pb::CommonResp { code, msg: Some(text.to_owned()), ..Default::default() })
}

fn protobuf(status: StatusCode, message: &impl Message) -> Response {
    (status, [(header::CONTENT_TYPE, PROTOBUF)], message.encode_to_vec()).into_response()
}
