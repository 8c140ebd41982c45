//! What clients are sent: PushBody with pushes and responses, framed for WebSocket or TCP,
//! encrypted where the connection has keys (specification sections 2.1, 3.3, 4.5 and 7.2).
//!
//! Invariants: bytes are those that a protobuf library writes; defaults are left out.
//! Costs: a message is one allocation of its exact size, header and padding included, and is
//! encrypted where it stands.

use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::cipher::Cipher;
use super::tcp;
use crate::wire::websocket::{self, Opcode};

/// The first message to every client (section 1.2).
pub const GREETING: &[u8] = b"connected";

/// PushEvent of responses.
pub const EVENT_RESPONSE: i32 = 2;
/// PushEvent of the greeting that carries an IV seed.
pub const EVENT_AFTER_CONNECT: i32 = 3;

/// Codes of ResponseBody and CommonResp.
pub mod code {
    pub const SUCCESS: i32 = 0;
    pub const UNKNOWN: i32 = 1;
    pub const INTERNAL: i32 = 2;
    pub const REQUEST: i32 = 3;
    pub const AUTH: i32 = 4;
    pub const TOAST: i32 = 5;
    pub const ALERT: i32 = 7;
    pub const RETRY: i32 = 8;
}

/// Texts of CommonResp and of close frames (sections 1.8, 2.1 and 4.5).
pub mod text {
    pub const NOT_LOGGED_IN: &str = "未登录";
    pub const BUSY: &str = "服务繁忙，请稍后再试";
    pub const AUTH_FAILED: &str = "认证失败，请重新登录";
    pub const RETRY: &str = "网络繁忙，请重试";
    pub const NO_CREDENTIALS: &str = "鉴权失败: id或token为空";
    pub const LOGGED_IN_ELSEWHERE: &str = "您的账号在其他设备登录";
    pub const UNKNOWN: &str = "未知错误";
    pub const REQUEST: &str = "请求错误";
    pub const ALERT: &str = "{\"title\":\"提示\",\"msg\":\"服务繁忙，请稍后再试\"}";
}

/// What the default message of a code is (section 2.1).
pub const fn default_text(code: i32) -> &'static str {
    match code {
        code::SUCCESS => "ok",
        code::INTERNAL | code::TOAST => text::BUSY,
        code::REQUEST => text::REQUEST,
        code::AUTH => text::AUTH_FAILED,
        code::ALERT => text::ALERT,
        code::RETRY => text::RETRY,
        _ => text::UNKNOWN,
    }
}

/// A CommonResp; without `msg` the field is absent.
pub fn common_resp(code: i32, msg: Option<&str>) -> Bytes {
    let size = varint_field_len(code) + msg.map_or(0, |msg| 1 + len_len(msg.len()));
    let mut out = Vec::with_capacity(size);
    put_varint_field(0x08, code, &mut out);
    if let Some(msg) = msg {
        put_len(0x12, msg.as_bytes(), &mut out);
    }
    debug_assert_eq!(out.len(), size);
    Bytes::from(out)
}

/// How messages travel to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    WebSocket,
    /// Section 7.2.
    Tcp,
}

impl Carrier {
    /// A text message; only the greeting is one.
    pub fn text(self, text: &[u8]) -> Bytes {
        match self {
            Carrier::WebSocket => websocket::frame(Opcode::Text, text),
            Carrier::Tcp => {
                let mut out = tcp::begin(tcp::TEXT, text.len());
                out.extend_from_slice(text);
                Bytes::from(out)
            }
        }
    }

    /// A binary message, encrypted if there is a cipher.
    pub fn binary(self, body: &impl Body, cipher: Option<&Cipher>) -> Bytes {
        let len = body.size();
        let sent = if cipher.is_some() { Cipher::encrypted_len(len) } else { len };
        let mut out = match self {
            Carrier::WebSocket => websocket::begin_frame(Opcode::Binary, sent),
            Carrier::Tcp => tcp::begin(tcp::BINARY, sent),
        };
        let (start, room) = (out.len(), out.capacity());
        body.put(&mut out);
        debug_assert_eq!(out.len() - start, len);
        if let Some(cipher) = cipher {
            cipher.encrypt(&mut out, start);
        }
        debug_assert_eq!((out.len() - start, out.capacity()), (sent, room));
        Bytes::from(out)
    }
}

/// A serialized PushBody of known size.
pub trait Body {
    /// Bytes that [`Body::put`] appends.
    fn size(&self) -> usize;
    fn put(&self, out: &mut Vec<u8>);
}

/// A PushBody that is serialized already.
impl Body for &[u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

/// A push.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    pub event: i32,
    pub data: &'a [u8],
    /// Whether `data` becomes the only element of a list (section 2.9, `v1_notice_wrap`).
    pub wrapped: bool,
}

impl Push<'_> {
    fn data_len(&self) -> usize {
        let len = self.data.len();
        if self.wrapped { 1 + len_len(len) } else { len }
    }
}

impl Body for Push<'_> {
    fn size(&self) -> usize {
        varint_field_len(self.event) + bytes_field_len(self.data_len())
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint_field(0x08, self.event, out);
        if self.wrapped {
            out.push(0x12);
            encode_varint(self.data_len() as u64, out);
            put_len(0x0a, self.data, out);
        } else {
            put_bytes_field(0x12, self.data, out);
        }
    }
}

/// A response; `head` is what [`head`] made of the request.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub head: &'a [u8],
    pub code: i32,
    pub data: &'a [u8],
}

impl Response<'_> {
    fn inner(&self) -> usize {
        self.head.len() + varint_field_len(self.code) + bytes_field_len(self.data.len())
    }
}

impl Body for Response<'_> {
    fn size(&self) -> usize {
        2 + bytes_field_len(self.inner())
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint_field(0x08, EVENT_RESPONSE, out);
        let inner = self.inner();
        if inner == 0 {
            return;
        }
        out.push(0x12);
        encode_varint(inner as u64, out);
        out.extend_from_slice(self.head);
        put_varint_field(0x18, self.code, out);
        put_bytes_field(0x22, self.data, out);
    }
}

/// The part of a ResponseBody that echoes the request, and where its reqId stands in it.
pub fn head(req_id: &str, method: &str) -> (Bytes, std::ops::Range<usize>) {
    let (id, name) = (req_id.as_bytes(), method.as_bytes());
    let mut out = Vec::with_capacity(bytes_field_len(id.len()) + bytes_field_len(name.len()));
    put_bytes_field(0x0a, id, &mut out);
    let range = out.len() - id.len()..out.len();
    put_bytes_field(0x12, name, &mut out);
    (Bytes::from(out), range)
}

/// Length and contents of a field that has a length.
pub(super) fn len_len(len: usize) -> usize {
    encoded_len_varint(len as u64) + len
}

/// A field that is left out when it is empty; its key is one byte.
fn bytes_field_len(len: usize) -> usize {
    if len == 0 { 0 } else { 1 + len_len(len) }
}

fn put_bytes_field(key: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        put_len(key, bytes, out);
    }
}

fn put_len(key: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(key);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// An enum or int32, left out when it is 0. Negative ones are sign-extended to 64 bits.
fn varint_field_len(value: i32) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(i64::from(value) as u64) }
}

fn put_varint_field(key: u8, value: i32, out: &mut Vec<u8>) {
    if value != 0 {
        out.push(key);
        encode_varint(i64::from(value) as u64, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::protocols::xxim::wire::proto::{CommonResp, PushBody, ResponseBody};

    fn written(body: &impl Body) -> Vec<u8> {
        let mut out = Vec::new();
        body.put(&mut out);
        assert_eq!(out.len(), body.size());
        out
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_a_protobuf_library(
            req_id in ".{0,50}",
            method in ".{0,50}",
            code in prop_oneof![Just(0), 0..12, any::<i32>()],
            event in prop_oneof![Just(0), 0..5, any::<i32>()],
            data in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let (head, range) = head(&req_id, &method);
            prop_assert_eq!(&head[range], req_id.as_bytes());
            let response = Response { head: &head, code, data: &data };
            let body = ResponseBody { req_id, method, code, data: data.clone().into() };
            let inner = body.encode_to_vec().into();
            let push = PushBody { event: EVENT_RESPONSE, data: inner }.encode_to_vec();
            prop_assert_eq!(written(&response), push);
            let push = PushBody { event, data: data.clone().into() }.encode_to_vec();
            prop_assert_eq!(written(&Push { event, data: &data, wrapped: false }), push);
        }

        #[test]
        fn common_resp_is_that_of_a_protobuf_library(code in any::<i32>(), msg in ".{0,40}") {
            let expected = CommonResp { code, msg: Some(msg.clone()), data: Bytes::new() };
            prop_assert_eq!(common_resp(code, Some(&msg)), expected.encode_to_vec());
            let expected = CommonResp { code, msg: None, data: Bytes::new() };
            prop_assert_eq!(common_resp(code, None), expected.encode_to_vec());
        }
    }

    #[test]
    fn a_message_has_the_room_that_it_needs_on_every_carrier() {
        let cipher = Cipher::new(b"key", b"iv");
        for len in [0, 1, 15, 16, 120, 125, 126, 300, 65_530, 70_000] {
            let data = vec![7; len];
            let push = Push { event: 1, data: &data, wrapped: false };
            for carrier in [Carrier::WebSocket, Carrier::Tcp] {
                let plain = carrier.binary(&push, None);
                assert!(plain.ends_with(&written(&push)));
                let mut sealed = carrier.binary(&push, Some(&cipher)).to_vec();
                let start = sealed.len() - Cipher::encrypted_len(push.size());
                let len = cipher.decrypt(&mut sealed[start..]).expect("it was encrypted");
                assert_eq!(&sealed[start..start + len], written(&push));
            }
        }
    }
}
