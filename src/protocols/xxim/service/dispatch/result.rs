//! From what an upstream said to what its client gets (xxim sections 4.4 and 4.5).
//!
//! Invariants: a code other than 0 always comes with a CommonResp of that code; a reply that does
//! not say what it must is nonsense and never a success. Costs: one walk over the top-level fields
//! of a reply; its body is not copied.

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};
use tonic::Code as Status;

use super::Failure;
use crate::protocols::xxim::letters::UpstreamResult;
use crate::protocols::xxim::wire::code::{AUTH, INTERNAL, REQUEST, RETRY};
use crate::protocols::xxim::wire::default_text;
use crate::protocols::xxim::wire::proto::CommonResp;

/// A reply to an HTTP call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub status: u16,
    /// The content type is `application/x-protobuf`.
    pub protobuf: bool,
    pub code: CodeHeader,
    pub body: Bytes,
}

/// What the header `X-Xxim-Code` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum CodeHeader {
    #[default]
    Absent,
    Is(i32),
    /// It is no number, or there are two that differ.
    Nonsense,
}

impl CodeHeader {
    /// The same with one more line of it.
    pub(super) fn and(self, value: &[u8]) -> CodeHeader {
        let code = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
        match (self, code) {
            (CodeHeader::Absent, Some(code)) => CodeHeader::Is(code),
            (CodeHeader::Is(before), Some(code)) if before == code => self,
            _ => CodeHeader::Nonsense,
        }
    }
}

/// A result that the gateway produces itself. Wrong requests have no text (section 4.5).
pub fn own(code: i32) -> UpstreamResult {
    let msg = (code != REQUEST).then(|| default_text(code).to_owned());
    refused(CommonResp { code, msg, data: Bytes::new() })
}

fn refused(resp: CommonResp) -> UpstreamResult {
    UpstreamResult { code: resp.code, data: resp.encode_to_vec().into() }
}

/// Mode `raw`. `tag`: field number of commonResp in the response, 0 for none.
pub(super) fn raw(reply: Reply, tag: u32) -> Result<UpstreamResult, Failure> {
    if reply.status != 200 {
        return Ok(by_status(&reply));
    }
    match reply.code {
        CodeHeader::Is(0) => Ok(UpstreamResult { code: 0, data: reply.body }),
        CodeHeader::Is(code) => Ok(by_header(code, reply.body, tag)),
        CodeHeader::Absent => response(reply.body, tag),
        CodeHeader::Nonsense => Err(Failure::Nonsense("X-Xxim-Code is not one number".to_owned())),
    }
}

/// Mode `envelope`.
pub(super) fn envelope(reply: Reply) -> Result<UpstreamResult, Failure> {
    if reply.status != 200 {
        return Ok(by_status(&reply));
    }
    match CommonResp::decode(reply.body) {
        Ok(resp) if resp.code == 0 => Ok(UpstreamResult { code: 0, data: resp.data }),
        Ok(resp) => Ok(refused(resp)),
        Err(error) => Err(Failure::Nonsense(format!("no CommonResp: {error}"))),
    }
}

/// A response message without headers: gRPC, and `raw` without `X-Xxim-Code`.
pub(super) fn response(body: Bytes, tag: u32) -> Result<UpstreamResult, Failure> {
    match common_resp(body.clone(), tag) {
        Ok(Some(resp)) if resp.code != 0 => Ok(refused(resp)),
        Ok(_) => Ok(UpstreamResult { code: 0, data: body }),
        Err(error) => Err(Failure::Nonsense(format!("no response message: {error}"))),
    }
}

/// A header says that the call failed. What the client gets as CommonResp has the header's code.
fn by_header(code: i32, body: Bytes, tag: u32) -> UpstreamResult {
    let field = common_resp(body.clone(), tag).ok().flatten().filter(|resp| resp.code == code);
    let whole = || CommonResp::decode(body).ok().filter(|resp| resp.code == code);
    match field.or_else(whole) {
        Some(resp) => refused(resp),
        None => own(code),
    }
}

/// The commonResp of a response, merged over its occurrences. `None`: there is none.
fn common_resp(mut body: Bytes, tag: u32) -> Result<Option<CommonResp>, prost::DecodeError> {
    if tag == 0 {
        return Ok(None);
    }
    let mut found: Option<CommonResp> = None;
    while body.has_remaining() {
        let (number, wire_type) = decode_key(&mut body)?;
        if number == tag && wire_type == WireType::LengthDelimited {
            found.get_or_insert_default().merge_length_delimited(&mut body)?;
        } else {
            skip_field(wire_type, number, &mut body, DecodeContext::default())?;
        }
    }
    Ok(found)
}

fn by_status(reply: &Reply) -> UpstreamResult {
    if reply.protobuf
        && let Ok(resp) = CommonResp::decode(reply.body.clone())
        && resp.code != 0
    {
        return refused(resp);
    }
    own(match reply.status {
        400 | 404 | 405 | 413 | 415 | 422 => REQUEST,
        401 | 403 => AUTH,
        408 | 429 | 502 | 503 | 504 => RETRY,
        _ => INTERNAL,
    })
}

/// The code of a gRPC status that is not OK.
pub(super) fn by_grpc(status: Status) -> UpstreamResult {
    own(match status {
        Status::Unauthenticated | Status::PermissionDenied => AUTH,
        Status::InvalidArgument
        | Status::NotFound
        | Status::Unimplemented
        | Status::FailedPrecondition
        | Status::OutOfRange
        | Status::AlreadyExists => REQUEST,
        Status::DeadlineExceeded
        | Status::Unavailable
        | Status::ResourceExhausted
        | Status::Aborted
        | Status::Cancelled => RETRY,
        _ => INTERNAL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(body: &[u8]) -> Reply {
        Reply { status: 200, body: Bytes::copy_from_slice(body), ..Reply::default() }
    }

    /// What a client gets of it.
    fn told(result: Result<UpstreamResult, Failure>) -> UpstreamResult {
        result.unwrap_or_else(|failure| {
            assert!(matches!(failure, Failure::Nonsense(_)), "{failure}");
            own(INTERNAL)
        })
    }

    fn raw(reply: Reply, tag: u32) -> UpstreamResult {
        told(super::raw(reply, tag))
    }

    fn envelope(reply: Reply) -> UpstreamResult {
        told(super::envelope(reply))
    }

    fn resp(code: i32, msg: &str) -> CommonResp {
        CommonResp { code, msg: Some(msg.to_owned()), data: Bytes::new() }
    }

    #[test]
    fn vectors_of_the_envelope() {
        let hex = |text: &str| -> Vec<u8> {
            let digit = |index: usize| u8::from_str_radix(&text[index..index + 2], 16).unwrap();
            (0..text.len()).step_by(2).map(digit).collect()
        };
        let h02 = envelope(reply(&hex("12001a081202753212027533")));
        assert_eq!(h02, UpstreamResult { code: 0, data: hex("1202753212027533").into() });
        let h03 = hex("0804120fe799bbe5bd95e5b7b2e8bf87e69c9f");
        assert_eq!(envelope(reply(&h03)), UpstreamResult { code: 4, data: h03.into() });
        assert_eq!(envelope(reply(b"\x0a")).code, INTERNAL);
    }

    #[test]
    fn the_gateways_own_results_are_those_of_the_vectors() {
        // CommonResp of V18b and V17.
        let text = [b"\x08\x08\x12\x18".as_slice(), "网络繁忙，请重试".as_bytes()].concat();
        assert_eq!(own(RETRY), UpstreamResult { code: 8, data: text.into() });
        assert_eq!(own(REQUEST), UpstreamResult { code: 3, data: b"\x08\x03".as_slice().into() });
    }

    #[test]
    fn a_success_is_the_whole_body_and_a_failure_its_common_resp() {
        let success = b"\x0a\x00\x1a\x02ab";
        assert_eq!(raw(reply(success), 1).data, success.as_slice());
        let failed = resp(5, "no").encode_to_vec();
        let mut body = b"\x1a\x02ab\x0a\x06".to_vec();
        body.extend_from_slice(&failed);
        assert_eq!(raw(reply(&body), 1), UpstreamResult { code: 5, data: failed.clone().into() });
        assert_eq!(raw(reply(&body), 2).code, 0, "another tag");
        assert_eq!(raw(reply(&body), 0), UpstreamResult { code: 0, data: body.clone().into() });
        // Split over two occurrences, which protobuf merges.
        let split = [b"\x0a\x02\x08\x05".as_slice(), b"\x0a\x04\x12\x02no"].concat();
        assert_eq!(raw(reply(&split), 1), UpstreamResult { code: 5, data: failed.into() });
        assert_eq!(raw(reply(b"\x0a\x05"), 1).code, INTERNAL, "nonsense");
        assert_eq!(raw(reply(b"\x0a\x05"), 0).code, 0, "nobody looks into it");
    }

    #[test]
    fn the_header_decides_over_the_field() {
        let code = |code| {
            let code = CodeHeader::Is(code);
            Reply { code, ..reply(&resp(5, "no").encode_to_vec()) }
        };
        assert_eq!(raw(code(0), 1).code, 0);
        assert_eq!(raw(code(5), 0).data, resp(5, "no").encode_to_vec());
        let other = raw(code(7), 0);
        assert_eq!((other.code, CommonResp::decode(other.data).unwrap().code), (7, 7));
    }

    #[test]
    fn a_header_that_is_no_number_is_never_a_success() {
        let of = |lines: &[&str]| {
            let code =
                lines.iter().fold(CodeHeader::Absent, |code, line| code.and(line.as_bytes()));
            raw(Reply { code, ..reply(b"\x1a\x02ab") }, 1).code
        };
        assert_eq!((of(&[]), of(&["0"]), of(&["0", "0"]), of(&[" 0 "])), (0, 0, 0, 0));
        for lines in [&["zero"][..], &[""], &["0x0"], &["0", "5"], &["5", "0"], &["99999999999"]] {
            assert_eq!(of(lines), INTERNAL, "{lines:?}");
        }
    }

    #[test]
    fn statuses_have_their_codes() {
        let code = |status| raw(Reply { status, ..Reply::default() }, 1).code;
        let expected = [
            (400, 3),
            (404, 3),
            (405, 3),
            (413, 3),
            (415, 3),
            (422, 3),
            (401, 4),
            (403, 4),
            (408, 8),
            (429, 8),
            (502, 8),
            (503, 8),
            (504, 8),
            (500, 2),
            (501, 2),
            (204, 2),
            (302, 2),
        ];
        expected.iter().for_each(|&(status, expected)| assert_eq!(code(status), expected));
        let body = resp(9, "forbidden").encode_to_vec();
        let told = Reply {
            status: 500,
            protobuf: true,
            body: body.clone().into(),
            code: CodeHeader::Absent,
        };
        assert_eq!(raw(told.clone(), 1), UpstreamResult { code: 9, data: body.into() });
        assert_eq!(raw(Reply { protobuf: false, ..told.clone() }, 1).code, 2);
        assert_eq!(envelope(Reply { status: 403, ..told }).code, 9);
    }

    #[test]
    fn grpc_statuses_have_their_codes() {
        let code = |status| by_grpc(status).code;
        assert_eq!(code(Status::Unauthenticated), 4);
        assert_eq!(code(Status::Unimplemented), 3);
        assert_eq!(code(Status::Unavailable), 8);
        assert_eq!(code(Status::DeadlineExceeded), 8);
        assert_eq!(code(Status::Internal), 2);
        assert_eq!(code(Status::Unknown), 2);
    }
}
