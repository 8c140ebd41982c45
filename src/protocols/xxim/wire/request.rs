//! What clients send: the RequestBody and names of methods (specification sections 2.1, 4.1, 4.4).
//!
//! Costs: a request is slices of the message that it came in; no allocation.

use super::fields::{Fields, Malformed};

/// Bytes that the name of a method may have.
pub const METHOD_BYTES_MAX: usize = 128;
/// Segments of a method after the version.
const SEGMENTS_MAX: usize = 6;

/// Methods that the gateway answers itself; they are never forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalMethod {
    /// Set-params; the path selects the schema.
    SetParams(Version),
    /// Set-user; one schema on every path.
    SetUser,
    KeepAlive,
}

/// Which document a message or a connection follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// A RequestBody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRequest<'a> {
    /// Chosen by the client; opaque, may be empty or repeated.
    pub req_id: &'a str,
    pub method: &'a str,
    pub data: &'a [u8],
}

impl<'a> ClientRequest<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// What was read before the defect, for the answer (section 4.1, step 2).
    pub fn parse(message: &'a [u8]) -> Result<ClientRequest<'a>, ClientRequest<'a>> {
        let mut request = ClientRequest::default();
        for field in Fields::new(message) {
            let Ok(field) = field else { return Err(request) };
            let read = match field.number {
                1 if field.is(1) => field.text().map(|text| request.req_id = text),
                2 if field.is(2) => field.text().map(|text| request.method = text),
                3 if field.is(3) => {
                    request.data = field.value;
                    Ok(())
                }
                _ => Ok(()),
            };
            if read == Err(Malformed) {
                return Err(request);
            }
        }
        Ok(request)
    }
}

/// The local method of this name. `legacy`: names of an earlier era count too (section 2.9).
pub fn local_method(method: &str, legacy: bool) -> Option<LocalMethod> {
    match method {
        "/v1/conn/white/setCxnParams" => Some(LocalMethod::SetParams(Version::V2)),
        "/v1/conn/setCxnParams" => Some(LocalMethod::SetParams(Version::V1)),
        "/v1/conn/white/setConnParams" if legacy => Some(LocalMethod::SetParams(Version::V1)),
        "/v1/conn/white/setUserParams" | "/v1/conn/setUserParams" => Some(LocalMethod::SetUser),
        "/v1/conn/keepAlive" => Some(LocalMethod::KeepAlive),
        _ => None,
    }
}

/// Whether a method may be called before login: it has the segment `white` (sections 4.1 and 9.2).
pub fn is_white(method: &str) -> bool {
    method.contains("/white/")
}

/// Whether a name can be a method of an upstream: `^/v[0-9]+(/[A-Za-z0-9_]+){1,6}$` in at most 128
/// bytes (section 4.4). So nothing in it can change what a request line means.
pub fn is_method(method: &str) -> bool {
    if method.len() > METHOD_BYTES_MAX {
        return false;
    }
    let mut segments = method.split('/');
    let first = segments.next() == Some("");
    let version = segments.next().and_then(|segment| segment.strip_prefix('v'));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let mut count = 0;
    let names = segments.all(|segment| {
        count += 1;
        name(segment)
    });
    first && version.is_some_and(digits) && names && (1..=SEGMENTS_MAX).contains(&count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::protocols::xxim::wire::proto::RequestBody;

    #[test]
    fn what_stands_before_the_defect_is_kept() {
        let whole = RequestBody {
            req_id: "n7".into(),
            method: "/v1/conn/keepAlive".into(),
            data: b"data".to_vec().into(),
        }
        .encode_to_vec();
        let request = ClientRequest::parse(&whole).expect("a whole message");
        assert_eq!((request.req_id, request.method), ("n7", "/v1/conn/keepAlive"));
        assert_eq!(request.data, b"data");
        let cut = ClientRequest::parse(&whole[..20]).expect_err("the method is cut");
        assert_eq!((cut.req_id, cut.method), ("n7", ""));
        let wrong = [&[0x0a, 1, 0xff][..], &whole].concat();
        assert_eq!(ClientRequest::parse(&wrong), Err(ClientRequest::default()));
        let last =
            ClientRequest::parse(b"\x0a\x01a\x0a\x01b\x08\x05").expect("the last one counts");
        assert_eq!(last.req_id, "b");
        assert_eq!(ClientRequest::parse(b""), Ok(ClientRequest::default()));
    }

    #[test]
    fn methods_have_a_shape() {
        for method in ["/v1/a", "/v10/user/white/login", "/v1/a/b/c/d/e/F_0"] {
            assert!(is_method(method), "{method}");
        }
        let long = format!("/v1/{}", "a".repeat(METHOD_BYTES_MAX));
        for method in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v/a",
            "v1/a",
            "/v1//a",
            "/v1/a/",
            "/v1/a?b",
            "/v1/a b",
            "/v1/%61",
            "/v1/a/b/c/d/e/f/g",
            "/x1/a",
            "/v1/\u{e4}",
            "/v1/../a",
            "/v1/a\r\n",
            &long,
        ] {
            assert!(!is_method(method), "{method}");
        }
        assert!(is_white("/v1/user/white/login") && !is_white("/v1/user/whiteList"));
    }

    #[test]
    fn local_methods_are_exact() {
        let legacy = "/v1/conn/white/setConnParams";
        assert_eq!(local_method(legacy, false), None);
        assert_eq!(local_method(legacy, true), Some(LocalMethod::SetParams(Version::V1)));
        assert_eq!(local_method("/v1/conn/KeepAlive", true), None);
        assert_eq!(local_method("/v1/conn/setUserParams", false), Some(LocalMethod::SetUser));
    }

    proptest! {
        #[test]
        fn the_same_as_another_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
            let theirs = RequestBody::decode(&bytes[..]);
            if let (Ok(theirs), Ok(ours)) = (theirs, ClientRequest::parse(&bytes)) {
                prop_assert_eq!(theirs.req_id, ours.req_id);
                prop_assert_eq!(theirs.method, ours.method);
                prop_assert_eq!(theirs.data, ours.data);
            }
        }

        #[test]
        fn encoded_requests_are_read(
            req_id in ".{0,40}",
            method in ".{0,40}",
            data in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let body = RequestBody { req_id, method, data: data.into() };
            let bytes = body.encode_to_vec();
            let request = ClientRequest::parse(&bytes).expect("an encoded message");
            prop_assert_eq!(request.req_id, body.req_id);
            prop_assert_eq!(request.method, body.method);
            prop_assert_eq!(request.data, body.data);
        }
    }
}
