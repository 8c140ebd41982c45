//! HTTP callbacks of netsvr (netsvr section 7): whether a client may enter, and that one has gone.
//!
//! One attempt each. How many run is bounded by the shards; what a client sees does not depend on
//! why a callback failed. Costs: a task and the answer's body per callback.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};

use crate::outside::Outside;
use crate::outside::callback::{Callback, Failure, PROTOBUF, Target};
use crate::outside::http_client::{self, HttpClient};
use crate::protocols::netsvr::wire::Verdict;

/// Whom to call about netsvr clients and how long to wait.
#[derive(Clone, Debug, Default)]
pub struct CallbackSettings {
    /// Asked before a client is let in. `None` if nobody is to be asked; then shards do not either.
    pub on_open: Option<String>,
    /// Told when a client has gone.
    pub on_close: Option<String>,
    /// For everything from the name lookup to the last byte of the answer.
    pub deadline: Duration,
    /// Longest answer that is read.
    pub answer_bytes_max: usize,
}

/// Who makes the calls.
pub(super) struct Caller {
    open: Callback,
    close: Callback,
    answer_bytes_max: usize,
}

impl Caller {
    /// Fails if an address is not a URL, or if there is no entropy for TLS.
    pub(super) fn new(callbacks: CallbackSettings, outside: &Outside) -> io::Result<Caller> {
        let CallbackSettings { on_open, on_close, deadline, answer_bytes_max } = callbacks;
        let client = match on_open.is_some() || on_close.is_some() {
            true => Some(HttpClient::new(outside.settings)?),
            false => None,
        };
        let callback = |name, url: Option<String>| {
            let http = |url: String| Target::http(name, &url, client.as_ref());
            let target = url.map_or(Ok(Target::Unset), http)?;
            Ok::<_, io::Error>(Callback::new(name, target, deadline, &outside.registry))
        };
        Ok(Caller {
            open: callback("on_open", on_open)?,
            close: callback("on_close", on_close)?,
            answer_bytes_max,
        })
    }

    /// Asks whether the client may enter (netsvr section 7.1). `body` is a `ConnOpen`. `None`: it
    /// failed.
    pub(super) async fn on_open(&self, body: Bytes) -> Option<Box<Verdict>> {
        match self.ask(body).await {
            Ok(verdict) => Some(Box::new(verdict)),
            Err(failure) => {
                self.open.failed(&failure);
                None
            }
        }
    }

    /// Tells that a client has gone (netsvr section 7.2). `body` is a `ConnClose`. Any answer will
    /// do.
    pub(super) async fn on_close(&self, body: Bytes) {
        match self.close.attempt(body).await {
            Ok(()) | Err(Failure::Status(_)) => {}
            Err(failure) => self.close.failed(&failure),
        }
    }

    async fn ask(&self, body: Bytes) -> Result<Verdict, Failure> {
        let Target::Http(client, url) = &self.open.target else { return Err(Failure::Unset) };
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, PROTOBUF), (ACCEPT, PROTOBUF)]);
        let response = client.post(url.clone(), headers, body, self.open.deadline).await?;
        if !http_client::is_ok(&response) {
            return Err(Failure::Status(response.status()));
        }
        let answer = http_client::body(response, self.answer_bytes_max).await?;
        Verdict::decode(&answer).map_err(|error| Failure::Undecodable(error.to_string()))
    }
}
