//! The identity block that backends read in every request: encoding it, and putting it in the place
//! of whatever a client put there, on the bytes of the request (specification sections 2.2, 4.3).
//!
//! Invariant: no byte of a client's own identity block reaches a backend. Protobuf merges repeated
//! messages field by field, so every occurrence is dropped, not only the last.
//! Costs: one pass over the top-level fields and one allocation of the exact size per request; the
//! block itself is encoded once per identity.

use bytes::Bytes;
use prost::Message;

use super::fields::{Field, Fields, LEN, Malformed, VARINT};
use super::response::len_len;
use super::{Identity, proto};

/// The method whose request the two documents lay out differently (section 2.8).
pub const SEND_MSG_LIST: &str = "/v1/msg/sendMsgList";
/// Where version 2 of it has its identity block.
const SEND_MSG_LIST_TAG: u32 = 11;

/// The identity block, without `data`.
pub fn common_req(identity: &Identity) -> Bytes {
    Bytes::from(message(identity).encode_to_vec())
}

/// The identity block around a request message: the body of mode `envelope` (section 4.4).
pub fn envelope(identity: &Identity, data: Bytes) -> Bytes {
    Bytes::from(proto::CommonReq { data, ..message(identity) }.encode_to_vec())
}

fn message(identity: &Identity) -> proto::CommonReq {
    proto::CommonReq {
        user_id: identity.user_id.clone(),
        token: identity.token.clone(),
        device_model: identity.device_model.clone(),
        device_id: identity.device_id.clone(),
        os_version: identity.os_version.clone(),
        platform: identity.platform.clone(),
        // The original leaves it out, and the vectors do: it repeats the device id.
        package_id: match identity.package_id == identity.device_id {
            true => String::new(),
            false => identity.package_id.clone(),
        },
        app_version: identity.app_version.clone(),
        language: identity.language.clone(),
        data: Bytes::new(),
        ip: identity.ip.clone(),
        user_agent: identity.user_agent.clone(),
    }
}

/// Puts an encoded identity block into a request at field `tag`, in the place of any that is there.
///
/// # Errors
/// The request is not a protobuf message.
pub fn inject(data: &[u8], tag: u32, common_req: &[u8]) -> Result<Bytes, Malformed> {
    build(data, Some((tag, common_req)), |field| without(field, tag))
}

/// The request without the identity block at field `tag`: for backends that get the gateway's own
/// around it.
///
/// # Errors
/// The request is not a protobuf message.
pub fn strip(data: &[u8], tag: u32) -> Result<Bytes, Malformed> {
    build(data, None, |field| without(field, tag))
}

fn without(field: &Field<'_>, tag: u32) -> Keep {
    if field.is(tag) { Keep::No } else { Keep::Whole }
}

/// The same for `sendMsgList`, in the layout that the request has. With `rewrite` a request of
/// version 1 becomes one of version 2.
///
/// # Errors
/// The request is not a protobuf message.
pub fn inject_send_msg_list(
    data: &[u8],
    rewrite: bool,
    common_req: &[u8],
) -> Result<Bytes, Malformed> {
    send_msg_list(data, rewrite, Some(common_req))
}

/// `sendMsgList` without identity block; otherwise as [`inject_send_msg_list`].
///
/// # Errors
/// The request is not a protobuf message.
pub fn strip_send_msg_list(data: &[u8], rewrite: bool) -> Result<Bytes, Malformed> {
    send_msg_list(data, rewrite, None)
}

fn send_msg_list(data: &[u8], rewrite: bool, own: Option<&[u8]>) -> Result<Bytes, Malformed> {
    const TAG: u32 = SEND_MSG_LIST_TAG;
    let mut first_layout = false;
    for field in Fields::new(data) {
        first_layout |= field?.is(2);
    }
    let at = |tag| own.map(|own| (tag, own));
    if !first_layout {
        return build(data, at(TAG), |field| without(field, TAG));
    }
    if !rewrite {
        // The other layout's place is cleared too: a backend may read either.
        return build(data, at(1), |field| match field.number {
            1 | TAG if field.wire_type == LEN => Keep::No,
            _ => Keep::Whole,
        });
    }
    build(data, at(TAG), |field| match (field.number, field.wire_type) {
        (1, _) => Keep::No,
        (2, LEN) => Keep::As(1),
        (TAG, VARINT) => Keep::As(2),
        (2 | TAG, _) => Keep::No,
        _ => Keep::Whole,
    })
}

/// What becomes of a field.
enum Keep {
    No,
    Whole,
    /// Under another number below 16.
    As(u8),
}

/// The fields that are kept, and behind them `own` in its field.
fn build(
    data: &[u8],
    own: Option<(u32, &[u8])>,
    keep: impl Fn(&Field<'_>) -> Keep,
) -> Result<Bytes, Malformed> {
    let own = own.map(|(tag, own)| (u64::from(tag) << 3 | u64::from(LEN), own));
    let more =
        own.map_or(0, |(key, own)| prost::encoding::encoded_len_varint(key) + len_len(own.len()));
    let mut out = Vec::with_capacity(data.len() + more);
    for field in Fields::new(data) {
        let field = field?;
        match keep(&field) {
            Keep::No => {}
            Keep::Whole => out.extend_from_slice(field.whole),
            Keep::As(number) => {
                out.push(number << 3 | field.wire_type);
                if field.wire_type == LEN {
                    prost::encoding::encode_varint(field.value.len() as u64, &mut out);
                }
                out.extend_from_slice(field.value);
            }
        }
    }
    if let Some((key, own)) = own {
        prost::encoding::encode_varint(key, &mut out);
        prost::encoding::encode_varint(own.len() as u64, &mut out);
        out.extend_from_slice(own);
    }
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocols::xxim::wire::proto::{
        CommonReq, GetFriendListReq, MsgData, Page, SendMsgListReq, SendMsgListReqV1,
    };

    fn identity() -> Identity {
        Identity { user_id: "u".into(), ip: "192.0.2.7".into(), ..Identity::default() }
    }

    fn smuggled() -> Option<CommonReq> {
        Some(CommonReq { user_id: "victim".into(), token: "t".into(), ..CommonReq::default() })
    }

    #[test]
    fn nothing_that_a_client_says_of_itself_gets_through() {
        let own = common_req(&identity());
        let page = Some(Page { page: 1, size: 2 });
        let request = GetFriendListReq { common_req: smuggled(), page, ..Default::default() };
        let twice = [request.encode_to_vec(), request.encode_to_vec()].concat();
        let body = inject(&twice, 1, &own).expect("a message");
        let read = GetFriendListReq::decode(body).expect("a message");
        assert_eq!((read.common_req, read.page), (Some(message(&identity())), page));
        let nobody = common_req(&Identity::default());
        let body = inject(&twice, 1, &nobody).expect("a message");
        let read = GetFriendListReq::decode(body).expect("a message");
        assert_eq!(read.common_req, Some(CommonReq::default()));
        assert_eq!(inject(&twice[..twice.len() - 1], 1, &own), Err(Malformed));
    }

    #[test]
    fn a_message_of_document_1_becomes_one_of_document_2() {
        let own = common_req(&identity());
        let message = MsgData { client_msg_id: "c".into(), ..MsgData::default() };
        let request = SendMsgListReqV1 {
            common_req: smuggled(),
            msg_data_list: vec![message.clone(), message.clone()],
            deliver_after: Some(5),
        };
        let bytes = request.encode_to_vec();
        let body = inject_send_msg_list(&bytes, true, &own).expect("a message");
        let read = SendMsgListReq::decode(body).expect("a message");
        assert_eq!(read.msg_data_list, request.msg_data_list);
        assert_eq!(
            (read.deliver_after, read.common_req),
            (Some(5), Some(super::message(&identity())))
        );
        let body = inject_send_msg_list(&bytes, false, &own).expect("a message");
        let read = SendMsgListReqV1::decode(body).expect("a message");
        assert_eq!(read.common_req, Some(super::message(&identity())));
        assert_eq!((read.msg_data_list.len(), read.deliver_after), (2, Some(5)));
    }

    #[test]
    fn a_smuggled_block_does_not_survive_the_change_of_layout() {
        let own = common_req(&Identity::default());
        let message =
            SendMsgListReqV1 { msg_data_list: vec![MsgData::default()], ..Default::default() };
        let late = SendMsgListReq { common_req: smuggled(), ..Default::default() };
        let bytes = [message.encode_to_vec(), late.encode_to_vec()].concat();
        for rewrite in [true, false] {
            let body = inject_send_msg_list(&bytes, rewrite, &own).expect("a message");
            assert!(!body.windows(6).any(|window| window == b"victim"), "{rewrite}");
            let body = strip_send_msg_list(&bytes, rewrite).expect("a message");
            assert!(!body.windows(6).any(|window| window == b"victim"), "{rewrite}");
        }
    }

    #[test]
    fn a_request_can_go_without_an_identity() {
        let page = Some(Page { page: 1, size: 2 });
        let plain = GetFriendListReq { page, ..Default::default() };
        let request = GetFriendListReq { common_req: smuggled(), ..plain.clone() };
        assert_eq!(strip(&request.encode_to_vec(), 1).expect("a message"), plain.encode_to_vec());
        assert_eq!(strip(b"", 1), Ok(Bytes::new()));
        assert_eq!(strip(b"\xff", 1), Err(Malformed));
        let message = MsgData { client_msg_id: "c".into(), ..MsgData::default() };
        let old = SendMsgListReqV1 {
            common_req: smuggled(),
            msg_data_list: vec![message.clone()],
            deliver_after: Some(5),
        };
        let body = strip_send_msg_list(&old.encode_to_vec(), true).expect("a message");
        let new = SendMsgListReq {
            msg_data_list: vec![message],
            deliver_after: Some(5),
            common_req: None,
        };
        assert_eq!(SendMsgListReq::decode(body).expect("a message"), new);
    }

    /// However a client writes its block: with keys and lengths that take more bytes than they
    /// need, several times, cut into parts, behind fields of other types with the same number.
    #[test]
    fn odd_spellings_of_the_block_do_not_get_through() {
        let block = smuggled().expect("some").encode_to_vec();
        let len = block.len() as u8;
        let short: &[u8] = &[0x0a, len];
        let long_key: &[u8] = &[0x8a, 0x80, 0x00, len];
        let long_len: &[u8] = &[0x0a, len | 0x80, 0x80, 0x00];
        let other_types: &[u8] = &[0x08, 1, 0x0d, 1, 2, 3, 4, 0x0b, 0x0c];
        let page = GetFriendListReq { opt: 2, ..Default::default() }.encode_to_vec();
        for head in [short, long_key, long_len] {
            let one = [head, &block].concat();
            let bytes = [&one[..], other_types, &page, &one, &one].concat();
            for body in [inject(&bytes, 1, b""), strip(&bytes, 1)] {
                let body = body.expect("a message");
                assert!(!body.windows(6).any(|window| window == b"victim"), "{head:?}");
                assert!(body.windows(page.len()).any(|window| window == page));
            }
        }
        // A number that others would cut to 32 bits, and so read as field 1.
        let wide = [&[0x8a, 0x80, 0x80, 0x80, 0x10, len][..], &block].concat();
        assert_eq!(inject(&wide, 1, b""), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_not_the_identity_stays_byte_for_byte(
            page in any::<i32>(),
            opt in 0..3,
            after in any::<bool>(),
        ) {
            let own = common_req(&identity());
            let page = Some(Page { page, size: 1 });
            let request = GetFriendListReq { page, opt, ..Default::default() }.encode_to_vec();
            let smuggled = GetFriendListReq { common_req: smuggled(), ..Default::default() };
            let smuggled = smuggled.encode_to_vec();
            let parts = if after { [&request, &smuggled] } else { [&smuggled, &request] };
            let body = inject(&parts.map(Vec::as_slice).concat(), 1, &own).expect("a message");
            prop_assert!(body.starts_with(&request));
            prop_assert_eq!(body.len(), request.len() + 2 + own.len());
        }
    }
}
