//! What is said to whom a request can not be carried out for.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a request is not carried out: an HTTP status, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) struct Fault {
    pub status: u16,
    pub message: String,
    /// The methods that there are, for 405.
    allow: Option<String>,
}

impl Fault {
    fn new(status: u16, message: impl Into<String>) -> Fault {
        Fault { status, message: message.into(), allow: None }
    }

    /// What another node has said.
    pub fn of(status: u16, message: String) -> Fault {
        Fault::new(status, message)
    }

    /// Something in the request is wrong.
    pub fn bad(message: impl Into<String>) -> Fault {
        Fault::new(400, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Fault {
        Fault::new(404, message)
    }

    /// Who asks may not do that.
    pub fn forbidden(message: impl Into<String>) -> Fault {
        Fault::new(403, message)
    }

    /// There is such a path, with these methods.
    pub fn method(allow: String) -> Fault {
        let message = format!("this path has only {allow}");
        Fault { allow: Some(allow), ..Fault::new(405, message) }
    }

    /// It can not be done with this thing.
    pub fn conflict(message: impl Into<String>) -> Fault {
        Fault::new(409, message)
    }

    /// The body is too long.
    pub fn too_large(most: usize) -> Fault {
        Fault::new(413, format!("a body has at most {most} bytes"))
    }

    /// Somebody inside did not answer.
    pub fn unavailable(error: impl std::fmt::Display) -> Fault {
        Fault::new(503, error.to_string())
    }

    /// A word for each status, for programs.
    fn code(&self) -> &'static str {
        match self.status {
            400 => "bad_request",
            403 => "forbidden",
            404 => "not_found",
            405 => "method_not_allowed",
            409 => "conflict",
            413 => "too_large",
            _ => "unavailable",
        }
    }

    /// The same as JSON.
    pub fn json(&self) -> Value {
        json!({ "error": { "code": self.code(), "message": self.message } })
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let mut headers = HeaderMap::new();
        if let Some(allow) = self.allow.as_deref().and_then(|a| HeaderValue::from_str(a).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        (headers, super::json(status, &self.json())).into_response()
    }
}
