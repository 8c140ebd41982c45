//! Upstreams over HTTP/2 and gRPC.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Version};
use axum::routing::post;
use prost::Message;
use ringway::protocols::xxim::config::upstream::{XximMode, XximUpstream};
use ringway::protocols::xxim::service::grpc::im_service_server::{ImService, ImServiceServer};
use ringway::protocols::xxim::wire::proto as pb;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::sidecar::server::{runtime, serve};
use super::sidecar::*;

type Log = Arc<Mutex<Vec<(Version, HeaderMap, Bytes)>>>;

#[test]
fn http_2_without_negotiation_carries_many_calls_at_once() {
    let runtime = runtime();
    let log: Log = Arc::default();
    let seen = log.clone();
    let routes = Router::new().route(
        "/base/v1/echo/it",
        post(move |version: Version, headers: HeaderMap, body: Bytes| {
            seen.lock().unwrap().push((version, headers, body.clone()));
            async move { ([("X-Xxim-Code", "0")], body) }
        }),
    );
    let url = format!("{}/base", serve(&runtime, routes));
    let im = XximUpstream { http2: true, ..upstream("im", url, XximMode::Raw) };
    let sidecar = Sidecar::with(only(im));
    for number in 0..200_u32 {
        sidecar.begin(number, call("/v1/echo/it", number.to_be_bytes().to_vec()));
    }
    let mut answers: Vec<_> = (0..200).map(|_| sidecar.answer()).collect();
    answers.sort_by_key(|(number, _)| *number);
    for (index, (number, result)) in answers.iter().enumerate() {
        assert_eq!((*number as usize, result.code), (index, 0));
        assert_eq!(&*result.data, number.to_be_bytes());
    }
    let log = log.lock().unwrap();
    let (version, headers, _) = &log[0];
    assert_eq!(*version, Version::HTTP_2);
    assert_eq!(headers["x-xxim-user-id"], "test123456");
    assert_eq!(headers["x-xxim-req-id"], "r1");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(sidecar.call(call("/v1/echo/other", OK)).code, 3, "404");
}

/// A backend that answers according to the method it is asked about.
#[derive(Default)]
struct Im {
    metadata: Arc<Mutex<Vec<HeaderMap>>>,
}

#[tonic::async_trait]
impl ImService for Im {
    async fn before_connect(
        &self,
        _: Request<pb::BeforeConnectReq>,
    ) -> Result<Response<pb::BeforeConnectResp>, Status> {
        Err(Status::unauthenticated("banned"))
    }

    async fn before_request(
        &self,
        request: Request<pb::BeforeRequestReq>,
    ) -> Result<Response<pb::BeforeRequestResp>, Status> {
        self.metadata.lock().unwrap().push(request.metadata().clone().into_headers());
        let method = request.into_inner().method;
        let code = match &*method {
            "down" => return Err(Status::unavailable("later")),
            "wrong" => return Err(Status::failed_precondition("never")),
            "broken" => return Err(Status::internal("oops")),
            "refused" => 5,
            _ => 0,
        };
        let msg = Some(method);
        let common_resp = Some(pb::CommonResp { code, msg, data: Bytes::new() });
        Ok(Response::new(pb::BeforeRequestResp { common_resp }))
    }

    async fn after_connect(
        &self,
        _: Request<pb::AfterConnectReq>,
    ) -> Result<Response<pb::CommonResp>, Status> {
        Ok(Response::new(pb::CommonResp::default()))
    }

    async fn after_disconnect(
        &self,
        _: Request<pb::AfterDisconnectReq>,
    ) -> Result<Response<pb::CommonResp>, Status> {
        Ok(Response::new(pb::CommonResp::default()))
    }
}

#[test]
fn grpc_calls_carry_the_bytes_as_they_are() {
    let runtime = runtime();
    let im = Im::default();
    let metadata = im.metadata.clone();
    let url = serve(&runtime, Routes::new(ImServiceServer::new(im)).into_axum_router());
    let settings = XximUpstream { grpc_generic: true, ..upstream("im", url, XximMode::Grpc) };
    let sidecar = Sidecar::with(only(settings));
    let ask = |method: &str| {
        let request = pb::BeforeRequestReq { method: method.into(), ..Default::default() };
        sidecar.call(call("/v1/im/beforeRequest", request.encode_to_vec()))
    };
    let good = ask("good");
    let resp = pb::BeforeRequestResp::decode(good.data).expect("the whole response");
    let told = resp.common_resp.and_then(|resp| resp.msg);
    assert_eq!((good.code, told.as_deref()), (0, Some("good")));
    let refused = ask("refused");
    let resp = pb::CommonResp::decode(refused.data).expect("a CommonResp");
    assert_eq!((refused.code, resp.code, resp.msg.as_deref()), (5, 5, Some("refused")));
    assert_eq!(ask("down").code, 8);
    assert_eq!(ask("wrong").code, 3);
    assert_eq!(ask("broken").code, 2);
    // Refused identity, unlisted names, and names that fit no service.
    assert_eq!(sidecar.call(call("/v1/im/beforeConnect", OK)).code, 4);
    assert_eq!(sidecar.call(call("/v1/im/noSuch", OK)).code, 3);
    assert_eq!(sidecar.call(call("/v1/im/a/b", OK)).code, 3);
    let metadata = metadata.lock().unwrap();
    assert_eq!(metadata[0]["x-xxim-user-id"], "test123456");
    assert_eq!(metadata[0]["x-xxim-req-id"], "r1");
    assert_eq!(metadata[0]["x-xxim-ip"], "203.0.113.7");
}

#[test]
fn a_grpc_upstream_that_is_not_there_gets_code_8() {
    let sidecar = Sidecar::with(only(upstream("im", "http://127.0.0.1:9", XximMode::Grpc)));
    assert_eq!(sidecar.call(call("/v1/user/white/login", OK)).code, 8);
    assert_eq!(sidecar.call(call("/v1/no/such", OK)).code, 3, "nobody is asked");
}

#[test]
fn no_client_can_add_a_header_over_http_2_and_grpc() {
    let runtime = runtime();
    let log: Log = Arc::default();
    let seen = log.clone();
    let routes = Router::new().fallback(
        move |version: Version, headers: HeaderMap, uri: axum::http::Uri, body: Bytes| {
            assert!(uri.path().ends_with("endMsgList") || uri.path().ends_with("endMsgListAsync"));
            seen.lock().unwrap().push((version, headers, body));
            async { ([("content-type", "application/grpc"), ("grpc-status", "0")], Bytes::new()) }
        },
    );
    let url = serve(&runtime, routes);
    for mode in [XximMode::Raw, XximMode::Grpc] {
        let im = XximUpstream { http2: true, ..upstream("im", url.clone(), mode) };
        let sidecar = Sidecar::with(only(im));
        sidecar.call(super::hostile());
        let (_, headers, _) = log.lock().unwrap().pop().expect("it was called");
        let own = headers.keys().filter(|name| name.as_str().starts_with("x-xxim-"));
        assert_eq!(own.count(), 14, "{headers:?}");
        for name in ["x-xxim-user-id", "x-xxim-token", "x-xxim-req-id", "x-xxim-user-agent"] {
            let values: Vec<_> = headers.get_all(name).iter().collect();
            assert_eq!(values, [super::ENCODED], "{mode:?}: {name}");
        }
    }
}
