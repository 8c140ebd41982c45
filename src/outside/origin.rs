//! Pages of strangers at ports that ask for no credentials: whoever works on the
//! machine has a browser that reaches them for every page that tells it to ([`Origins::trust`]).
//! There is no list, for no page has a use for them.

use axum::extract::Request;
use axum::http::header;

use crate::wire::origin::Origins;

/// Whether the request is one of such a page.
pub fn is_foreign(request: &Request) -> bool {
    let lines = request.headers().get_all(header::ORIGIN);
    let origin = lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>().join(&b", "[..]);
    let host = request.headers().get(header::HOST).map(|host| host.as_bytes());
    // HTTP/2 has no such header.
    let authority = || request.uri().authority().map(|authority| authority.as_str().as_bytes());
    !Origins::default().trust(&origin, host.or_else(authority).unwrap_or_default())
}
