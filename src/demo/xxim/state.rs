//! Users, groups and conversations of the demo's xxim upstream; sans-io.
//!
//! Invariants: everything has a limit, and what is beyond it is refused; the sender of a message is
//! who the gateway says it is, whatever the message says. Costs: O(members) per message.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use prost::Message;

use crate::protocols::xxim::wire::code;
use crate::protocols::xxim::wire::proto as pb;
use crate::protocols::xxim::wire::proto::batch_get_conv_seq_resp::ConvSeq;

/// What every user logs in with. Clients send its MD5 in hexadecimal.
pub const PASSWORD: &str = "123456";
const PASSWORD_MD5: &str = "e10adc3949ba59abbe56e057f20f883e";
/// The group that everybody is in.
pub const GROUP: &str = "10134";
/// Messages, and so pushes, of one request.
pub(super) const PUSHES_PER_REQUEST_MAX: usize = 16;
const USERS_MAX: usize = 10_000;
const CONVERSATIONS_MAX: usize = 10_000;
/// Members of a group that get a message.
const MEMBERS_MAX: usize = 1000;
const NAME_BYTES_MAX: usize = 64;
/// Friends in one answer: xxim's own client reads no more than 32,768 bytes.
const FRIENDS_MAX: usize = 200;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Answer with this, then push these in order.
    Done {
        response: Vec<u8>,
        pushes: Vec<pb::SendMsgReq>,
    },
    NoSuchMethod,
    /// The body is not the message of the method.
    Malformed,
}

/// One conversation.
#[derive(Debug, Default)]
struct Conversation {
    seq: u64,
    updated_ms: u64,
}

/// Everything that is remembered.
#[derive(Debug, Default)]
pub(super) struct Chats {
    /// By user id: when it logged in first.
    users: BTreeMap<String, u64>,
    conversations: BTreeMap<String, Conversation>,
}

impl From<prost::DecodeError> for Outcome {
    fn from(_: prost::DecodeError) -> Outcome {
        Outcome::Malformed
    }
}

impl Chats {
    /// Handles the request of a client. `now_ms`: Unix milliseconds.
    pub(super) fn request(&mut self, method: &str, body: Bytes, now_ms: u64) -> Outcome {
        let outcome = match method {
            "/v1/user/white/login" => self.login(body, now_ms),
            "/v1/relation/getFriendList" => self.friends(body),
            "/v1/group/getMyGroupList" => self.groups(body),
            "/v1/msg/sendMsgList" => self.send(body, now_ms),
            "/v1/msg/batchGetConvSeq" => self.sequences(body),
            "/v1/im/white/keepAlive" => Ok(done(&pb::KeepAliveResp::default())),
            "/v1/notice/ackNoticeData" => Ok(done(&pb::SendMsgListResp::default())),
            _ => Ok(Outcome::NoSuchMethod),
        };
        outcome.unwrap_or_else(Outcome::from)
    }

    fn login(&mut self, body: Bytes, now_ms: u64) -> Result<Outcome, prost::DecodeError> {
        let request = pb::LoginReq::decode(body)?;
        let refuse = |msg: &str| {
            done(&pb::LoginResp { common_resp: toast(msg), ..pb::LoginResp::default() })
        };
        let id = request.id;
        if id.is_empty() || id.len() > NAME_BYTES_MAX {
            return Ok(refuse("账号不存在"));
        }
        if request.password != PASSWORD_MD5 {
            return Ok(refuse("密码错误"));
        }
        if !self.users.contains_key(&id) && self.users.len() >= USERS_MAX {
            return Ok(refuse("用户太多"));
        }
        self.users.entry(id.clone()).or_insert(now_ms);
        let token = format!("demo.{:032x}", fastrand::u128(..));
        Ok(done(&pb::LoginResp { token, user_id: id, ..pb::LoginResp::default() }))
    }

    fn friends(&self, body: Bytes) -> Result<Outcome, prost::DecodeError> {
        let request = pb::GetFriendListReq::decode(body)?;
        let own = request.common_req.unwrap_or_default().user_id;
        let size = request.page.map_or(0, |page| usize::try_from(page.size).unwrap_or(0));
        let others = self.users.keys().filter(|user| **user != own);
        let ids: Vec<String> = others.take(size.min(FRIENDS_MAX)).cloned().collect();
        let with_info = request.opt != pb::get_friend_list_req::Opt::OnlyId as i32;
        let info = |id: &String| {
            let info = pb::UserBaseInfo { id: id.clone(), nickname: id.clone(), avatar: "".into() };
            (id.clone(), info)
        };
        let user_map = if with_info { ids.iter().map(info).collect() } else { BTreeMap::new() };
        Ok(done(&pb::GetFriendListResp { ids, user_map, ..pb::GetFriendListResp::default() }))
    }

    fn groups(&self, body: Bytes) -> Result<Outcome, prost::DecodeError> {
        pb::GetMyGroupListReq::decode(body)?;
        let info = pb::GroupBaseInfo { id: GROUP.into(), name: "demo".into(), avatar: "".into() };
        Ok(done(&pb::GetMyGroupListResp {
            common_resp: None,
            group_map: BTreeMap::from([(GROUP.to_owned(), info)]),
            ids: vec![GROUP.to_owned()],
        }))
    }

    fn send(&mut self, body: Bytes, now_ms: u64) -> Result<Outcome, prost::DecodeError> {
        let request = pb::SendMsgListReq::decode(body)?;
        let sender = request.common_req.unwrap_or_default().user_id;
        let refuse = |msg: &str| done(&pb::SendMsgListResp { common_resp: toast(msg) });
        if request.msg_data_list.len() > PUSHES_PER_REQUEST_MAX {
            return Ok(refuse("消息太多"));
        }
        if !request.msg_data_list.iter().all(|message| self.takes(&message.conv_id, &sender)) {
            return Ok(refuse("会话不存在"));
        }
        let accept = |message| self.accept(message, &sender, now_ms);
        let pushes = request.msg_data_list.into_iter().map(accept).collect();
        Ok(Outcome::Done { response: pb::SendMsgListResp::default().encode_to_vec(), pushes })
    }

    /// Whether there is such a conversation, or room for it, and the sender is in it.
    fn takes(&self, conversation: &str, sender: &str) -> bool {
        let known = self.conversations.contains_key(conversation);
        (known || self.conversations.len() < CONVERSATIONS_MAX)
            && conversation.len() <= 3 * NAME_BYTES_MAX
            && self.members(conversation, sender).iter().any(|member| member == sender)
    }

    /// Numbers a message; gives the push of it.
    fn accept(&mut self, mut message: pb::MsgData, sender: &str, now_ms: u64) -> pb::SendMsgReq {
        let conversation = match self.conversations.entry(message.conv_id.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Conversation::default()),
        };
        conversation.seq += 1;
        conversation.updated_ms = now_ms;
        message.seq = conversation.seq.to_string();
        message.server_msg_id = format!("{}-{}", message.conv_id, message.seq);
        message.server_time = now_ms.to_string();
        message.sender_id = sender.to_owned();
        let user_ids = self.members(&message.conv_id, sender);
        let data = pb::MsgDataList { msg_data_list: vec![message] }.encode_to_vec().into();
        let filter = pb::GetUserConnReq { user_ids, ..pb::GetUserConnReq::default() };
        pb::SendMsgReq {
            get_user_conn_req: Some(filter),
            event: pb::PushEvent::PushMsgDataList as i32,
            data,
        }
    }

    /// The users of a conversation, the sender included if it is one of them: both of
    /// `single:<a>-<b>`, all of a group.
    fn members(&self, conversation: &str, sender: &str) -> Vec<String> {
        if sender.is_empty() {
            return Vec::new();
        }
        if let Some(pair) = conversation.strip_prefix("single:") {
            // Ids may have a `-` themselves: the sender's is known.
            let other = pair
                .strip_prefix(sender)
                .and_then(|rest| rest.strip_prefix('-'))
                .or_else(|| pair.strip_suffix(sender)?.strip_suffix('-'));
            return match other {
                Some(other) if !other.is_empty() => vec![sender.to_owned(), other.to_owned()],
                _ => Vec::new(),
            };
        }
        match conversation.strip_prefix("group:") {
            Some(group) if !group.is_empty() => {
                let others = self.users.keys().filter(|user| *user != sender);
                let others = others.take(MEMBERS_MAX).cloned();
                std::iter::once(sender.to_owned()).chain(others).collect()
            }
            _ => Vec::new(),
        }
    }

    fn sequences(&self, body: Bytes) -> Result<Outcome, prost::DecodeError> {
        let request = pb::BatchGetConvSeqReq::decode(body)?;
        let known = request.conv_id_list.into_iter().filter_map(|id| {
            let conversation = self.conversations.get(&id)?;
            let seq = ConvSeq {
                conv_id: id.clone(),
                min_seq: "1".to_owned(),
                max_seq: conversation.seq.to_string(),
                update_time: conversation.updated_ms.to_string(),
            };
            Some((id, seq))
        });
        let conv_seq_map = known.collect();
        Ok(done(&pb::BatchGetConvSeqResp { conv_seq_map, common_resp: None }))
    }
}

fn done(response: &impl Message) -> Outcome {
    Outcome::Done { response: response.encode_to_vec(), pushes: Vec::new() }
}

fn toast(msg: &str) -> Option<pb::CommonResp> {
    Some(pb::CommonResp { code: code::TOAST, msg: Some(msg.to_owned()), data: Bytes::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(outcome: Outcome) -> (Bytes, Vec<pb::SendMsgReq>) {
        match outcome {
            Outcome::Done { response, pushes } => (response.into(), pushes),
            other => panic!("{other:?}"),
        }
    }

    fn login(chats: &mut Chats, id: &str, password: &str) -> pb::LoginResp {
        let request =
            pb::LoginReq { id: id.into(), password: password.into(), ..Default::default() };
        let outcome = chats.request("/v1/user/white/login", request.encode_to_vec().into(), 5);
        pb::LoginResp::decode(response(outcome).0).expect("a LoginResp")
    }

    fn send(
        chats: &mut Chats,
        from: &str,
        conv: &str,
    ) -> (pb::SendMsgListResp, Vec<pb::SendMsgReq>) {
        let message =
            pb::MsgData { conv_id: conv.into(), sender_id: "x".into(), ..Default::default() };
        let common_req = Some(pb::CommonReq { user_id: from.into(), ..Default::default() });
        let request =
            pb::SendMsgListReq { msg_data_list: vec![message], common_req, deliver_after: None };
        let outcome = chats.request("/v1/msg/sendMsgList", request.encode_to_vec().into(), 7);
        let (body, pushes) = response(outcome);
        (pb::SendMsgListResp::decode(body).expect("a SendMsgListResp"), pushes)
    }

    fn users(push: &pb::SendMsgReq) -> Vec<&str> {
        let filter = push.get_user_conn_req.as_ref().expect("a filter");
        filter.user_ids.iter().map(String::as_str).collect()
    }

    #[test]
    fn whoever_knows_the_password_gets_a_token_of_its_own() {
        let mut chats = Chats::default();
        let first = login(&mut chats, "ann", PASSWORD_MD5);
        assert_eq!((&*first.user_id, first.common_resp), ("ann", None));
        assert_ne!(first.token, login(&mut chats, "ann", PASSWORD_MD5).token);
        for (id, password) in [("ann", PASSWORD), ("", PASSWORD_MD5)] {
            let refused = login(&mut chats, id, password);
            assert_eq!(refused.common_resp.map(|resp| resp.code), Some(5));
            assert_eq!(refused.token, "");
        }
    }

    #[test]
    fn a_message_goes_to_the_members_of_its_conversation() {
        let mut chats = Chats::default();
        for user in ["ann", "bob", "eve"] {
            login(&mut chats, user, PASSWORD_MD5);
        }
        let (resp, pushes) = send(&mut chats, "ann", "group:10134");
        assert_eq!((resp.common_resp, users(&pushes[0])), (None, vec!["ann", "bob", "eve"]));
        let list = pb::MsgDataList::decode(pushes[0].data.clone()).expect("a list");
        let message = &list.msg_data_list[0];
        assert_eq!((&*message.seq, &*message.sender_id), ("1", "ann"), "not who it says");
        assert_eq!(message.server_msg_id, "group:10134-1");
        let (_, pushes) = send(&mut chats, "bob", "single:ann-bob");
        assert_eq!(users(&pushes[0]), ["bob", "ann"]);
        for (from, conv) in [("eve", "single:ann-bob"), ("", "group:1"), ("ann", "other:1")] {
            let (resp, pushes) = send(&mut chats, from, conv);
            assert_eq!((resp.common_resp.map(|resp| resp.code), pushes.len()), (Some(5), 0));
        }
        send(&mut chats, "ann", "group:10134");
        let request = pb::BatchGetConvSeqReq {
            conv_id_list: vec!["group:10134".into(), "group:no".into()],
            common_req: None,
        };
        let body = request.encode_to_vec().into();
        let (body, _) = response(chats.request("/v1/msg/batchGetConvSeq", body, 9));
        let found = pb::BatchGetConvSeqResp::decode(body).expect("an answer").conv_seq_map;
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&*found["group:10134"].max_seq, &*found["group:10134"].update_time),
            ("2", "7")
        );
    }

    #[test]
    fn friends_are_the_others() {
        let mut chats = Chats::default();
        for user in ["ann", "bob", "eve"] {
            login(&mut chats, user, PASSWORD_MD5);
        }
        let common_req = Some(pb::CommonReq { user_id: "bob".into(), ..Default::default() });
        let page = Some(pb::Page { page: 1, size: 999_999 });
        let request = pb::GetFriendListReq { common_req, page, ..Default::default() };
        let body = request.encode_to_vec().into();
        let (body, _) = response(chats.request("/v1/relation/getFriendList", body, 1));
        let list = pb::GetFriendListResp::decode(body).expect("an answer");
        assert_eq!((list.ids, list.user_map.len()), (vec!["ann".to_owned(), "eve".to_owned()], 2));
        let bad = chats.request("/v1/relation/getFriendList", Bytes::from_static(b"\xff"), 1);
        assert!(matches!(bad, Outcome::Malformed));
        assert!(matches!(chats.request("/v1/x", Bytes::new(), 1), Outcome::NoSuchMethod));
    }
}
