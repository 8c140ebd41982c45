//! The HTTP client for everything that calls an application; each service has one.
//!
//! It keeps connections alive, follows redirects where that makes sense (301, 302 and 303 turn a
//! POST into a GET, 307 and 308 repeat it) and reads no more of an answer than it is told to. One
//! deadline covers everything from the name lookup to the last byte. Errors never contain the URL:
//! it may hold a secret.
//! Costs: one copy of the body that is read; connections are reused while calls keep coming.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, ClientBuilder, Response, StatusCode, Url};

use crate::config::model::Sidecar;
use crate::log::target;

/// Idle connections kept to one host.
const IDLE_PER_HOST_MAX: usize = 64;
/// Why a call brought no answer. Whoever made the call counts it and tells its peer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("no complete answer within the deadline")]
    Timeout,
    #[error("cannot connect: {0}")]
    Unreachable(String),
    #[error("{0}")]
    Transport(String),
    #[error("the peer breaks the protocol: {0}")]
    Nonsense(String),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// The client. Clones share its connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client,
}

impl HttpClient {
    /// A client that trusts the certificates of the system. If the system has none, calls over
    /// `https` will fail, plain ones work.
    pub fn new(settings: Sidecar) -> io::Result<HttpClient> {
        match HttpClient::build(client_builder(settings)) {
            Ok(client) => Ok(client),
            Err(error) => {
                tracing::warn!(
                    target: target::SIDECAR,
                    %error, "no certificates of the system: https calls will fail"
                );
                HttpClient::with_certificates(settings, [])
            }
        }
    }

    /// A client that trusts these certificates only.
    fn with_certificates(
        settings: Sidecar,
        certificates: impl IntoIterator<Item = Certificate>,
    ) -> io::Result<HttpClient> {
        HttpClient::build(client_builder(settings).tls_certs_only(certificates))
    }

    /// Makes a POST. `deadline` covers the answer's body too, until the response is dropped.
    pub async fn post(
        &self,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Response, Failure> {
        let request = self.client.post(url).headers(headers).body(body).timeout(deadline);
        request.send().await.map_err(Failure::from)
    }

    fn build(builder: ClientBuilder) -> io::Result<HttpClient> {
        // reqwest panics without a provider. Fails if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = builder.build().map_err(|error| io::Error::other(causes(error)))?;
        Ok(HttpClient { client })
    }
}

/// A client for calls whose replies are all that matters: it follows no redirect. `http2`: speak
/// HTTP/2 without negotiation. Deadlines are the caller's.
pub fn calls(settings: Sidecar, http2: bool, connect_time_max: Duration) -> io::Result<Client> {
    let builder = || {
        let builder = client_builder(settings)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(connect_time_max);
        if http2 { builder.http2_prior_knowledge() } else { builder }
    };
    let client = HttpClient::build(builder());
    let client = client.or_else(|_| HttpClient::build(builder().tls_certs_only([])))?;
    Ok(client.client)
}

/// Reads the body of a response, at most `bytes_max` of it.
pub async fn body(mut response: Response, bytes_max: usize) -> Result<Bytes, Failure> {
    let announced = response.content_length().unwrap_or(0);
    if usize::try_from(announced).map_or(true, |announced| announced > bytes_max) {
        return Err(Failure::TooLong(bytes_max));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if chunk.len() > bytes_max - body.len() {
            return Err(Failure::TooLong(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// An address that this client can call: absolute, `http` or `https`. The error does not repeat it.
pub fn url(text: &str) -> io::Result<Url> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let url = Url::parse(text).map_err(|error| wrong(format!("not a URL: {error}")))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(wrong("not a http or https URL".to_owned())),
    }
}

/// Whether the caller wants this and nothing else.
pub fn is_ok(response: &Response) -> bool {
    response.status() == StatusCode::OK
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Failure {
        if error.is_timeout() {
            Failure::Timeout
        } else if error.is_connect() {
            Failure::Unreachable(causes(error))
        } else if is_nonsense(&error) {
            Failure::Nonsense(causes(error))
        } else {
            Failure::Transport(causes(error))
        }
    }
}

/// Whether an error of a transport says that the peer is there and breaks the protocol.
pub fn is_nonsense(error: &(dyn std::error::Error + 'static)) -> bool {
    // HTTP/2 tells what it has found itself from what the peer says of it in words only.
    const FOUND: [&str; 2] = ["connection error detected: ", "stream error detected: "];
    let mut cause = Some(error);
    while let Some(error) = cause {
        let unparsable = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
        let invalid = error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
        });
        let text = error.to_string();
        if unparsable || invalid || FOUND.iter().any(|found| text.starts_with(found)) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn client_builder(settings: Sidecar) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("ringway/", env!("CARGO_PKG_VERSION")))
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .pool_idle_timeout(settings.idle_timeout)
        .redirect(reqwest::redirect::Policy::limited(settings.redirects_max as usize))
        .referer(false)
        // A proxy is nothing that the environment of the process should slip in.
        .no_proxy()
}

/// The error and what led to it, in one line. Only the outermost one knows the URL.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;

    use rcgen::generate_simple_self_signed;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn post(upstream: &HttpClient, url: &str) -> Result<Bytes, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let call =
                upstream.post(Url::parse(url).unwrap(), HeaderMap::new(), "?".into(), DEADLINE);
            body(call.await?, 100).await
        })
    }

    /// Answers one request with `sealed`, or fails in the handshake. Returns port and certificate.
    fn tls_server() -> (u16, Certificate) {
        let certified = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let trusted = Certificate::from_der(&certificate).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let session = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(session, stream);
            if stream.read(&mut [0; 4096]).is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsealed";
                stream.write_all(answer).unwrap();
            }
        });
        (port, trusted)
    }

    #[test]
    fn https_works_with_a_trusted_certificate() {
        let (port, certificate) = tls_server();
        let upstream = HttpClient::with_certificates(Sidecar::default(), [certificate]).unwrap();
        let answer = post(&upstream, &format!("https://localhost:{port}/")).unwrap();
        assert_eq!(answer, "sealed");
    }

    #[test]
    fn an_unknown_certificate_is_a_failure_that_does_not_show_the_url() {
        let (port, _) = tls_server();
        let upstream = HttpClient::new(Sidecar::default()).unwrap();
        let failure = post(&upstream, &format!("https://localhost:{port}/?token=5ecr3t"));
        let text = failure.unwrap_err().to_string();
        assert!(text.contains("certificate") && !text.contains("5ecr3t"), "{text}");
    }

    #[test]
    fn a_system_without_certificates_can_still_call_http() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain").unwrap();
        });
        let upstream = HttpClient::with_certificates(Sidecar::default(), []).unwrap();
        assert_eq!(post(&upstream, &format!("http://{address}/")).unwrap(), "plain");
        let (port, _) = tls_server();
        assert!(post(&upstream, &format!("https://localhost:{port}/")).is_err());
    }
}
