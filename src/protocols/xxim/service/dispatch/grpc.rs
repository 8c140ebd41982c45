//! gRPC upstreams: unary calls with the bytes as they are (xxim sections 4.2 and 4.4).
//!
//! Invariant: no message is decoded here; the codec is the identity. Costs: per call a header map
//! and what HTTP/2 costs; all calls of an upstream share one connection.

use std::borrow::Cow;
use std::io;

use bytes::{Buf, BufMut, Bytes};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::{Failure, headers};
use crate::config::model::XximUpstream;
use crate::outside::http_client;

/// One upstream.
#[derive(Clone, Debug)]
pub(super) struct GrpcUpstream {
    channel: Channel,
    generic: bool,
    reply_bytes_max: usize,
}

impl GrpcUpstream {
    /// Connects at the first call. Needs the context of a runtime.
    pub(super) fn new(upstream: &XximUpstream) -> io::Result<GrpcUpstream> {
        let channel = channel(&upstream.url, upstream.connect_timeout)?;
        Ok(GrpcUpstream {
            channel,
            generic: upstream.grpc_generic,
            reply_bytes_max: upstream.reply_bytes_max as usize,
        })
    }

    /// Calls the method. `Ok(Err(status))`: the upstream said no. `None`: it has no such method.
    pub(super) async fn call(
        &self,
        method: &str,
        identity: &[u8],
        req_id: &[u8],
        body: Bytes,
    ) -> Option<Result<Result<Bytes, Status>, Failure>> {
        let path = path(method, self.generic)?;
        let path = http::uri::PathAndQuery::try_from(&*path).ok()?;
        let metadata = MetadataMap::from_headers(headers(identity, Some(req_id)));
        let request = Request::from_parts(metadata, tonic::Extensions::default(), body);
        Some(unary(self.channel.clone(), path, request, self.reply_bytes_max).await)
    }
}

/// A channel that connects when it is used. Needs the context of a runtime.
pub fn channel(url: &str, connect_time_max: std::time::Duration) -> io::Result<Channel> {
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
    path: http::uri::PathAndQuery,
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

/// Methods of section 4.2 whose service calls them otherwise.
const RENAMED: &[(&str, &str)] = &[
    ("/v1/msg/sendMsgList", "/pb.msgService/SendMsgListAsync"),
    ("/v1/msg/sendReadMsg", "/pb.msgService/ReadMsg"),
    ("/v1/msg/sendEditMsg", "/pb.msgService/EditMsg"),
];

/// The other methods of section 4.2, by service.
const LISTED: &[(&str, &str, &[&str])] = &[
    (
        "user",
        "userService",
        &[
            "white/login",
            "white/confirmRegister",
            "white/register",
            "white/sendSms",
            "white/verifySms",
            "white/getCaptchaCode",
            "white/verifyCaptchaCode",
            "white/resetPassword",
            "white/recoverAccount",
            "searchUsersByKeyword",
            "getUserSettings",
            "setUserSettings",
            "updateUserInfo",
            "updateUserPassword",
            "getUserHome",
            "reportUser",
            "destroyAccount",
            "getUserWallet",
        ],
    ),
    (
        "msg",
        "msgService",
        &[
            "batchGetConvSeq",
            "batchGetMsgListByConvId",
            "getMsgById",
            "sendRedPacket",
            "receiveRedPacket",
            "getRedPacketDetail",
        ],
    ),
    ("notice", "noticeService", &["ackNoticeData"]),
    (
        "im",
        "imService",
        &[
            "white/keepAlive",
            "updateConvSetting",
            "getConvSetting",
            "translateText",
            "batchTranslateText",
        ],
    ),
    (
        "relation",
        "relationService",
        &[
            "acceptAddFriend",
            "getMyFriendEventList",
            "requestAddFriend",
            "getFriendList",
            "deleteFriend",
            "blockUser",
            "deleteBlockUser",
            "updateUserRemark",
        ],
    ),
    (
        "group",
        "groupService",
        &[
            "createGroup",
            "getMyGroupList",
            "setGroupMemberInfo",
            "getGroupMemberInfo",
            "applyToBeGroupMember",
            "handleGroupApply",
            "getGroupApplyList",
            "kickGroupMember",
            "searchGroupsByKeyword",
            "getGroupHome",
            "getGroupMemberList",
            "reportGroup",
            "editGroupInfo",
            "batchKickGroupMember",
            "inviteFriendToGroup",
            "resetGroupInfo",
            "banGroupMember",
            "unbanGroupMember",
            "searchGroupMember",
            "setGroupMemberRole",
        ],
    ),
    (
        "appmgmt",
        "appMgmtService",
        &[
            "white/appGetAllConfig",
            "white/getLatestVersion",
            "getUploadInfo",
            "getAllAppMgmtLink",
            "appGetRichArticleList",
            "getAppAddressBook",
            "getAppAddressBookUrl",
        ],
    ),
];

/// The path of a method's call; `None`: no service has it.
fn path(method: &str, generic: bool) -> Option<Cow<'static, str>> {
    if let Some((_, path)) = RENAMED.iter().find(|(name, _)| *name == method) {
        return Some(Cow::Borrowed(path));
    }
    let (area, name) = method.strip_prefix("/v1/").and_then(|rest| rest.split_once('/'))?;
    let own = name.strip_prefix("white/").unwrap_or(name);
    let listed = LISTED.iter().find(|(listed, ..)| *listed == area);
    let service = match listed {
        Some((_, service, names)) if names.contains(&name) => Cow::Borrowed(*service),
        Some((_, service, _)) if generic => Cow::Borrowed(*service),
        None if generic => Cow::Owned(format!("{area}Service")),
        _ => return None,
    };
    let (first, rest) = own.split_at_checked(1)?;
    let plain = !rest.contains('/');
    plain.then(|| Cow::Owned(format!("/pb.{service}/{}{rest}", first.to_ascii_uppercase())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_the_paths_of_the_table() {
        let called = |method| path(method, false);
        for (method, expected) in [
            ("/v1/user/white/login", "/pb.userService/Login"),
            ("/v1/msg/sendMsgList", "/pb.msgService/SendMsgListAsync"),
            ("/v1/msg/sendEditMsg", "/pb.msgService/EditMsg"),
            ("/v1/relation/getFriendList", "/pb.relationService/GetFriendList"),
            ("/v1/appmgmt/white/getLatestVersion", "/pb.appMgmtService/GetLatestVersion"),
            ("/v1/im/white/keepAlive", "/pb.imService/KeepAlive"),
        ] {
            assert_eq!(called(method).as_deref(), Some(expected), "{method}");
        }
        assert_eq!(LISTED.iter().map(|(.., names)| names.len()).sum::<usize>() + 3 + 3, 71);
        for method in ["/v1/user/login", "/v1/no/such", "/v2/user/white/login", "/v1/user/", "/v1"]
        {
            assert_eq!(called(method), None, "{method}");
        }
    }

    #[test]
    fn unlisted_methods_are_called_by_their_name_if_wanted() {
        let called = |method| path(method, true);
        assert_eq!(called("/v1/no/such").as_deref(), Some("/pb.noService/Such"));
        assert_eq!(called("/v1/no/white/such").as_deref(), Some("/pb.noService/Such"));
        assert_eq!(called("/v1/appmgmt/other").as_deref(), Some("/pb.appMgmtService/Other"));
        assert_eq!(called("/v1/no/such/thing"), None);
    }
}
