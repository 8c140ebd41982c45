//! HTTP upstreams that the small client does not serve: `https`, and HTTP/2 without negotiation.
//!
//! Invariant: redirects are not followed, a reply with one is a reply. Costs: those of a general
//! client, about twice the small one's.

use std::io;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::Url;

use super::result::{CodeHeader, Reply};
use super::{Failure, headers, reply};
use crate::config::model::Sidecar;
use crate::outside::http_client;
use crate::protocols::xxim::config::upstream::XximUpstream;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// One upstream.
#[derive(Debug)]
pub(super) struct Other {
    client: reqwest::Client,
    url: Url,
    reply_bytes_max: usize,
}

impl Other {
    /// Fails if there is no entropy for TLS.
    pub(super) fn new(upstream: &XximUpstream, sidecar: Sidecar, url: Url) -> io::Result<Other> {
        let client = http_client::calls(sidecar, upstream.http2, upstream.connect_timeout)?;
        Ok(Other { client, url, reply_bytes_max: upstream.reply_bytes_max as usize })
    }

    /// Makes a POST.
    pub(super) async fn post(
        &self,
        method: &str,
        identity: &[u8],
        req_id: Option<&[u8]>,
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let mut url = self.url.clone();
        let path = format!("{}{method}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let mut headers = headers(identity, req_id);
        headers.insert(CONTENT_TYPE, PROTOBUF);
        headers.insert(ACCEPT, PROTOBUF);
        let call = self.client.post(url).headers(headers).body(body);
        let response = call.send().await.map_err(http_client::Failure::from)?;
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).map(HeaderValue::as_bytes);
        let protobuf = header("content-type").is_some_and(reply::is_protobuf);
        let codes = response.headers().get_all("x-xxim-code").iter().map(HeaderValue::as_bytes);
        let code = codes.fold(CodeHeader::Absent, CodeHeader::and);
        let body = http_client::body(response, self.reply_bytes_max).await?;
        Ok(Reply { status, protobuf, code, body })
    }
}

impl From<http_client::Failure> for Failure {
    fn from(failure: http_client::Failure) -> Failure {
        match failure {
            http_client::Failure::Timeout => Failure::Timeout,
            http_client::Failure::Unreachable(text) => Failure::Unreachable(text),
            http_client::Failure::Transport(text) => Failure::Transport(text),
            http_client::Failure::Nonsense(text) => Failure::Nonsense(text),
            http_client::Failure::TooLong(_) => Failure::Nonsense(failure.to_string()),
        }
    }
}
