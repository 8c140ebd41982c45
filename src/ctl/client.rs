//! Requests to the admin interface of a gateway.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::Value;

use super::table::plain;
use super::{SOCKET, URL};

/// An answer takes no longer, unless the gateway stands still.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    #[error(
        "no gateway answers at {place}: {reason}; does it run, and is this the right place \
         (--socket, --url)?"
    )]
    Unreachable { place: String, reason: String },
    #[error("{0}")]
    Refused(String),
    #[error("{place} has not answered as the admin interface of a gateway: {reason}")]
    Strange { place: String, reason: String },
    #[error("--node is {0:?}; it can be a number from 1 to 1023, or all")]
    Node(String),
    #[error("the output can not be written: {0}")]
    Output(std::io::Error),
}

/// The way to a gateway.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    place: String,
    /// What says which nodes are meant.
    nodes: Option<(&'static str, String)>,
}

impl Client {
    /// Nothing is sent yet.
    pub fn new(
        socket: Option<&Path>,
        url: Option<&str>,
        node: Option<&str>,
    ) -> Result<Client, CtlError> {
        let standard = PathBuf::from(SOCKET);
        let socket = match (socket, url) {
            (Some(socket), None) => Some(socket.to_owned()),
            (None, None) if standard.exists() => Some(standard),
            _ => None,
        };
        // Fails only if there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = url.unwrap_or(URL).trim_end_matches('/').to_owned();
        let builder = reqwest::Client::builder().timeout(PATIENCE).no_proxy();
        let (builder, base, place) = match socket {
            Some(path) => {
                let place = path.display().to_string();
                (builder.unix_socket(path), "http://localhost".to_owned(), place)
            }
            None => (builder, url.clone(), url),
        };
        let strange = |error: reqwest::Error| CtlError::Strange {
            place: place.clone(),
            reason: error.to_string(),
        };
        let http = builder.build().map_err(strange)?;
        let nodes = match node {
            None => None,
            Some("all") => Some(("cluster", "1".to_owned())),
            Some(number) if number.parse::<u16>().is_ok() => Some(("node", number.to_owned())),
            Some(other) => return Err(CtlError::Node(other.to_owned())),
        };
        Ok(Client { http, base, place, nodes })
    }

    /// One request. The segments of the path are as they are called.
    pub async fn ask(
        &self,
        method: &str,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value, CtlError> {
        let path = path.iter().map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string());
        let path = path.collect::<Vec<_>>().join("/");
        let nodes = self.nodes.as_ref().map(|(name, value)| (*name, &**value));
        let query: Vec<_> = query.iter().copied().chain(nodes).collect();
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
        let mut request = self.http.request(method, format!("{}/api/v1/{path}?{query}", self.base));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let place = || self.place.clone();
        let answer = request
            .send()
            .await
            .map_err(|error| CtlError::Unreachable { place: place(), reason: deepest(&error) })?;
        let status = answer.status();
        let strange = |reason: String| CtlError::Strange { place: place(), reason };
        let text = answer.text().await.map_err(|error| strange(deepest(&error)))?;
        let answer: Value = serde_json::from_str(&text)
            .map_err(|_| strange(format!("status {status}, and the answer is no JSON")))?;
        match status.is_success() {
            true => Ok(answer),
            false => {
                Err(CtlError::Refused(plain(answer["error"]["message"].as_str().unwrap_or(&text))))
            }
        }
    }
}

/// What is at the bottom of an error.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
