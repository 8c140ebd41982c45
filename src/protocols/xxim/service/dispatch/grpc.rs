//! gRPC upstreams: unary calls with the bytes as they are (xxim sections 4.2 and 4.4).
//!
//! Invariant: no message is decoded here. Costs: per call a header map and what HTTP/2 costs; all
//! calls of an upstream share one connection.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Failure, headers};
use crate::outside::grpc::{self, channel, unary};
use crate::protocols::xxim::config::upstream::XximUpstream;

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
        let reply = unary(self.channel.clone(), path, request, self.reply_bytes_max).await;
        Some(reply.map_err(Failure::from))
    }
}

impl From<grpc::Failure> for Failure {
    fn from(failure: grpc::Failure) -> Failure {
        match failure {
            grpc::Failure::Unreachable(text) => Failure::Unreachable(text),
            grpc::Failure::Transport(text) => Failure::Transport(text),
            grpc::Failure::Nonsense(text) => Failure::Nonsense(text),
        }
    }
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
