//! Unary gRPC calls of backends with the bytes as they are.
//!
//! Invariant: no message is decoded here; the codec is the identity. Costs: what HTTP/2 costs; all
//! calls over a channel share one connection.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::http_client;

/// Why a call brought no reply. The texts are for the log and never name a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("can not connect: {0}")]
    Unreachable(String),
    #[error("the connection failed: {0}")]
    Transport(String),
    #[error("no sense in the reply: {0}")]
    Nonsense(String),
}

/// A channel that connects when it is used. Needs the context of a runtime.
pub fn channel(url: &str, connect_time_max: Duration) -> io::Result<Channel> {
    let wrong = |error: tonic::transport::Error| io::Error::other(error.to_string());
    let mut endpoint = Endpoint::from_shared(url.to_owned()).map_err(wrong)?;
    if url.starts_with("https://") {
        let tls = ClientTlsConfig::new().with_native_roots();
        endpoint = endpoint.tls_config(tls).map_err(wrong)?;
    }
    Ok(endpoint.connect_timeout(connect_time_max).tcp_nodelay(true).connect_lazy())
}

/// One unary call with raw bytes.
pub async fn unary(
    channel: Channel,
    path: PathAndQuery,
    request: Request<Bytes>,
    reply_bytes_max: usize,
) -> Result<Result<Bytes, Status>, Failure> {
    let mut client = Grpc::new(channel).max_decoding_message_size(reply_bytes_max);
    let failed = |error: &dyn std::error::Error| Failure::Unreachable(error.to_string());
    client.ready().await.map_err(|error| failed(&error))?;
    match client.unary(request, path, BytesCodec).await {
        Ok(response) => Ok(Ok(response.into_inner())),
        // What the other side did not say is of the transport.
        Err(status) if status.code() == Code::Unavailable => {
            Err(Failure::Unreachable(status.message().to_owned()))
        }
        Err(status) if status.code() == Code::OutOfRange && is_too_long(&status) => {
            Err(Failure::Nonsense(status.message().to_owned()))
        }
        Err(status) => match std::error::Error::source(&status) {
            None => Ok(Err(status)),
            Some(error) if http_client::is_nonsense(error) => Err(Failure::Nonsense(text(error))),
            Some(error) => Err(Failure::Transport(text(error))),
        },
    }
}

/// An error of the transport and what led to it, in one line.
fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// tonic refuses messages above its limit with this status, which upstreams may use as well.
fn is_too_long(status: &Status) -> bool {
    status.message().contains("decoded message length too large")
}

/// Bytes in, the same bytes out.
#[derive(Clone, Copy, Debug, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> BytesCodec {
        BytesCodec
    }

    fn decoder(&mut self) -> BytesCodec {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
