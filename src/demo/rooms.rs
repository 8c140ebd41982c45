//! The demo in chat rooms (IM specification section 16): who enters the room `lobby` is greeted,
//! and commands, which begin with `/`, are answered in the room that they came from.
//!
//! The gateway forwards what members say as a Transfer whose data is the CRMessage
//! (`im.forward = "message"`); notices of `im.announce_join` come the same way.

use bytes::BytesMut;
use prost::Message;
use serde::Deserialize;

use super::link;
use crate::protocols::im::wire::proto::{CrMessage, CrMessageType};
use crate::wire::worker::Cmd;
use crate::wire::worker::proto as pb;

/// Where everybody is greeted.
const LOBBY: &str = "lobby";

/// A notice that somebody has entered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    event: String,
    user_id: String,
}

/// The room message in a Transfer; `None` if it is a message of a netsvr client. Only who is in a
/// room, and is signed in, can have said something there.
pub(super) fn message(from: &pb::Transfer) -> Option<CrMessage> {
    if from.customer_id.is_empty() || !from.topics.iter().any(|topic| topic.starts_with("cr:")) {
        return None;
    }
    let message = CrMessage::decode(&*from.data).ok()?;
    let topic = topic_of(&message);
    let notice = message.message_type == CrMessageType::Notify as u32;
    let said = message.from == from.customer_id || (notice && message.from.is_empty());
    (said && message.timestamp > 0 && from.topics.contains(&topic)).then_some(message)
}

/// Appends what the room is told about it, if anything.
pub(super) fn answer(message: &CrMessage, out: &mut BytesMut) {
    let text = match message.message_type {
        kind if kind == CrMessageType::Notify as u32 => greeting(message),
        _ => command(message),
    };
    let Some(text) = text else { return };
    let publish = pb::TopicPublish { topics: vec![topic_of(message)], data: text.into() };
    // A command is far shorter than a frame may be.
    let _ = link::put(out, Cmd::TopicPublish, &publish);
}

fn topic_of(message: &CrMessage) -> String {
    format!("cr:{}", message.to)
}

fn greeting(message: &CrMessage) -> Option<String> {
    let event: Event = serde_json::from_slice(&message.message_content).ok()?;
    let entered = event.event == "join" && message.to == LOBBY;
    entered.then(|| format!("Welcome, {}! Say /help to see what I can do.", event.user_id))
}

fn command(message: &CrMessage) -> Option<String> {
    let text = std::str::from_utf8(&message.message_content).ok()?;
    let command = text.strip_prefix('/')?;
    let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
    Some(match name {
        "help" => "/echo TEXT repeats it, /time tells the time, /me shows who you are".to_owned(),
        "echo" => rest.to_owned(),
        "time" => format!("{} ms since 1970", message.timestamp),
        "me" => match &message.user_info {
            Some(info) => format!("{}: {}, level {}", message.from, info.nickname, info.level),
            None => message.from.clone(),
        },
        _ => text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(message: &CrMessage, topics: &[&str]) -> pb::Transfer {
        pb::Transfer {
            customer_id: "ann".to_owned(),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            data: message.encode_to_vec().into(),
            ..pb::Transfer::default()
        }
    }

    fn said(content: &str, room: &str) -> CrMessage {
        CrMessage {
            message_content: content.as_bytes().to_vec().into(),
            from: "ann".to_owned(),
            to: room.to_owned(),
            timestamp: 1_700_000_000_000,
            ..CrMessage::default()
        }
    }

    /// What the room `room` is told, if anything.
    fn told(message: &CrMessage) -> Option<(String, String)> {
        let mut out = BytesMut::new();
        answer(message, &mut out);
        // Length and command number stand in front.
        let publish = pb::TopicPublish::decode(out.get(8..)?).expect("a TopicPublish");
        let text = String::from_utf8(publish.data.to_vec()).expect("a text");
        Some((publish.topics.join(","), text))
    }

    #[test]
    fn only_messages_of_members_are_taken_for_room_messages() {
        let hello = said("hello", "lobby");
        assert_eq!(message(&transfer(&hello, &["other", "cr:lobby"])), Some(hello.clone()));
        assert_eq!(message(&transfer(&hello, &["cr:other"])), None);
        assert_eq!(message(&transfer(&hello, &[])), None);
        let forged = CrMessage { from: "bob".to_owned(), ..hello };
        assert_eq!(message(&transfer(&forged, &["cr:lobby"])), None);
    }

    #[test]
    fn who_enters_the_lobby_is_greeted_and_nobody_elsewhere() {
        let mut notice = said(r#"{"event":"join","userId":"ann"}"#, "lobby");
        notice.from = String::new();
        notice.message_type = 1;
        assert!(message(&transfer(&notice, &["cr:lobby"])).is_some());
        let (topic, text) = told(&notice).expect("a greeting");
        assert_eq!(topic, "cr:lobby");
        assert!(text.starts_with("Welcome, ann!"), "{text}");
        notice.to = "other".to_owned();
        assert_eq!(told(&notice), None);
    }

    #[test]
    fn commands_are_answered_in_their_room_and_talk_is_not() {
        let answer = |text: &str| told(&said(text, "room-7")).map(|(_, text)| text);
        assert_eq!(answer("hello"), None);
        assert_eq!(answer("/echo a b").as_deref(), Some("a b"));
        assert_eq!(answer("/me").as_deref(), Some("ann"));
        assert_eq!(answer("/time").as_deref(), Some("1700000000000 ms since 1970"));
        assert_eq!(answer("/whatever x").as_deref(), Some("/whatever x"));
        let topic = told(&said("/help", "room-7")).map(|(topic, _)| topic);
        assert_eq!(topic.as_deref(), Some("cr:room-7"));
    }
}
