//! Commands in the words of the mesh, and back.
//!
//! What leaves is cut by bucket, so that each node gets the names that may be with it. What comes
//! is checked: an unknown kind or too many names refuse the whole command. Costs: the names are
//! copied, the payloads are not.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::hub::ConnId;
use crate::hub::context::ContextValue;
use crate::hub::mesh::{Bucket, Space};
use crate::hub::push::{
    Call, Change, CloseReason, Command, Payload, PayloadKind, RoomMessage, Target, TopicChange,
};
use crate::hub::rooms::room_of;
use crate::wire::mesh::proto::conn_call::Function;
use crate::wire::mesh::proto::{self, command::What};
use crate::wire::mesh::{MeshError, NAMES_MAX};

/// Whom one message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Lane {
    /// One node.
    Node(u16),
    /// Every node that has members in the bucket.
    Bucket(Bucket),
    /// Every node.
    All,
}

/// One message: whom it is for, what it says, and the only name in it, if there is only one.
#[derive(Debug)]
pub(super) struct Part {
    pub lane: Lane,
    pub command: proto::Command,
    pub name: Option<Box<str>>,
}

/// A command for one node.
pub(super) fn whole(node: u16, command: &Command) -> Part {
    Part { lane: Lane::Node(node), command: encode(command), name: None }
}

/// A command for every node that it concerns, in messages by bucket, in the order of the buckets.
pub(super) fn parts(command: &Command) -> Vec<Part> {
    match command {
        Command::Push { target, payloads } => by_target(target, |target| {
            let payloads = payloads.iter().map(|payload| payload_of(payload)).collect();
            What::Push(proto::Push { target: Some(target), payloads })
        }),
        Command::Kick { target, payload, reason, guests_only } => by_target(target, |target| {
            What::Kick(kick(target, payload.as_deref(), reason, *guests_only))
        }),
        Command::DeleteTopics { topics, payload } => by_bucket(Space::Topics, topics, |topics| {
            let payload = payload.as_deref().map(payload_of);
            What::DeleteTopics(proto::DeleteTopics { topics, payload })
        }),
        Command::Room(message) => {
            let topics = std::slice::from_ref(&message.topic);
            by_bucket(Space::Topics, topics, |_| What::Room(room(message)))
        }
        // Their connection is of this node.
        Command::Update { .. }
        | Command::Call { .. }
        | Command::Displace { .. }
        | Command::Replace(_) => Vec::new(),
    }
}

/// The sender is left out: a connection of this node is none of the others'.
fn room(message: &RoomMessage) -> proto::Room {
    proto::Room {
        topic: message.topic.to_string(),
        element: message.element.clone(),
        content: message.content.as_deref().map(payload_of),
    }
}

fn call(conn: ConnId, call: &Call) -> proto::ConnCall {
    let names = |names: &[Box<str>]| proto::Names { names: texts(names) };
    let function = match call {
        Call::SetContext(values) => {
            let value = |(key, value): &ContextValue| proto::ContextValue {
                key: key.to_string(),
                value: value.as_deref().map(str::to_owned),
            };
            let values = values.iter().map(value).collect();
            Function::SetContext(proto::SetContext { values })
        }
        Call::Subscribe(topics) => Function::Subscribe(names(topics)),
        Call::Unsubscribe(topics) => Function::Unsubscribe(names(topics)),
    };
    proto::ConnCall { conn: number_of(conn), function: Some(function) }
}

fn by_target(target: &Target, what: impl Fn(proto::Target) -> What) -> Vec<Part> {
    use proto::target::Kind;
    let named = |kind: Kind| {
        let what = &what;
        move |names| what(proto::Target { kind: kind.into(), names, conns: Vec::new() })
    };
    match target {
        // Their ids are of this node.
        Target::Conns(_) => Vec::new(),
        Target::Users(names) => by_bucket(Space::Users, names, named(Kind::Users)),
        Target::Topics(names) => by_bucket(Space::Topics, names, named(Kind::Topics)),
        Target::All => {
            let command = proto::Command { what: Some(named(Kind::All)(Vec::new())) };
            vec![Part { lane: Lane::All, command, name: None }]
        }
    }
}

fn by_bucket(space: Space, names: &[Box<str>], what: impl Fn(Vec<String>) -> What) -> Vec<Part> {
    let mut buckets: BTreeMap<Bucket, Vec<&str>> = BTreeMap::new();
    for name in names {
        buckets.entry(Bucket::of(space, name)).or_default().push(name);
    }
    let parts = buckets.into_iter().map(|(bucket, names)| {
        let name = (names.len() == 1).then(|| names[0].into());
        let names = names.into_iter().map(str::to_owned).collect();
        let command = proto::Command { what: Some(what(names)) };
        Part { lane: Lane::Bucket(bucket), command, name }
    });
    parts.collect()
}

fn encode(command: &Command) -> proto::Command {
    let what = match command {
        Command::Push { target, payloads } => What::Push(proto::Push {
            target: Some(target_of(target)),
            payloads: payloads.iter().map(|payload| payload_of(payload)).collect(),
        }),
        Command::Update { conn, change, payload } => What::Update(proto::Update {
            conn: number_of(*conn),
            session: change.session.as_deref().map(str::to_owned),
            user: change.user.as_deref().map(str::to_owned),
            topics: change.topics.as_ref().map(topics_of),
            payload: payload.as_deref().map(payload_of),
        }),
        Command::DeleteTopics { topics, payload } => What::DeleteTopics(proto::DeleteTopics {
            topics: texts(topics),
            payload: payload.as_deref().map(payload_of),
        }),
        Command::Kick { target, payload, reason, guests_only } => {
            What::Kick(kick(target_of(target), payload.as_deref(), reason, *guests_only))
        }
        Command::Call { conn, call: function } => What::ConnCall(call(*conn, function)),
        Command::Room(message) => What::Room(room(message)),
        Command::Displace { conn, login: [user, platform, device] } => {
            What::Displace(proto::Displace {
                conn: number_of(*conn),
                user: user.to_string(),
                platform: platform.to_string(),
                device: device.to_string(),
            })
        }
        // Sessions of IM are those of a node; the command never leaves it.
        Command::Replace(_) => return proto::Command { what: None },
    };
    proto::Command { what: Some(what) }
}

fn kick(
    target: proto::Target,
    payload: Option<&Payload>,
    reason: &CloseReason,
    guests_only: bool,
) -> proto::Kick {
    proto::Kick {
        target: Some(target),
        payload: payload.map(payload_of),
        code: reason.code.into(),
        reason: reason.text.clone().into_owned(),
        guests_only,
    }
}

fn target_of(target: &Target) -> proto::Target {
    use proto::target::Kind;
    let (kind, names): (Kind, &[Box<str>]) = match target {
        Target::Conns(conns) => {
            let conns = conns.iter().copied().map(number_of).collect();
            return proto::Target { kind: Kind::Conns.into(), conns, names: Vec::new() };
        }
        Target::Users(names) => (Kind::Users, names),
        Target::Topics(names) => (Kind::Topics, names),
        Target::All => (Kind::All, &[]),
    };
    proto::Target { kind: kind.into(), conns: Vec::new(), names: texts(names) }
}

fn topics_of(change: &TopicChange) -> proto::TopicChange {
    use proto::topic_change::How;
    let (how, topics) = match change {
        TopicChange::Add(topics) => (How::Add, topics),
        TopicChange::Remove(topics) => (How::Remove, topics),
        TopicChange::Replace(topics) => (How::Replace, topics),
    };
    proto::TopicChange { how: how.into(), topics: texts(topics) }
}

fn payload_of(payload: &Payload) -> proto::Payload {
    use proto::payload::Kind as Wire;
    let kind = match payload.kind() {
        PayloadKind::Unspecified => Wire::Unspecified,
        PayloadKind::Text => Wire::Text,
        PayloadKind::Binary => Wire::Binary,
    };
    proto::Payload { kind: kind.into(), data: payload.raw().clone() }
}

fn texts(names: &[Box<str>]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// A connection in the words of the mesh.
pub(super) fn number_of(conn: ConnId) -> u64 {
    u64::from(conn.generation()) << 32 | u64::from(conn.index())
}

/// And back.
pub(super) fn conn_of(number: u64) -> ConnId {
    ConnId::from_parts((number >> 32) as u32, number as u32)
}

/// A command of another node, for the connections of this one.
pub(super) fn decode(command: proto::Command) -> Result<Command, MeshError> {
    let what = command.what.ok_or(MeshError::Empty)?;
    Ok(match what {
        What::Push(push) => Command::Push {
            target: target(push.target)?,
            payloads: push.payloads.into_iter().map(payload).collect::<Result<_, _>>()?,
        },
        What::Update(update) => Command::Update {
            conn: conn_of(update.conn),
            change: Change {
                topics: update.topics.map(topics).transpose()?,
                session: update.session.map(String::into_boxed_str),
                user: update.user.map(String::into_boxed_str),
            },
            payload: update.payload.map(payload).transpose()?,
        },
        What::DeleteTopics(delete) => Command::DeleteTopics {
            topics: names(delete.topics)?,
            payload: delete.payload.map(payload).transpose()?,
        },
        What::Kick(kick) => Command::Kick {
            target: target(kick.target)?,
            payload: kick.payload.map(payload).transpose()?,
            reason: reason(kick.code, &kick.reason)?,
            guests_only: kick.guests_only,
        },
        What::ConnCall(call) => {
            let call_of = function(call.function.ok_or(MeshError::Empty)?)?;
            Command::Call { conn: conn_of(call.conn), call: call_of }
        }
        What::Displace(displace) => Command::Displace {
            conn: conn_of(displace.conn),
            login: [displace.user, displace.platform, displace.device].map(String::into_boxed_str),
        },
        What::Room(room) => {
            if room_of(&room.topic).is_none() {
                return Err(MeshError::Wrong("this is no room"));
            }
            Command::Room(Arc::new(RoomMessage {
                topic: room.topic.into(),
                element: room.element,
                content: room.content.map(payload).transpose()?,
                sender: None,
            }))
        }
    })
}

fn function(function: Function) -> Result<Call, MeshError> {
    Ok(match function {
        Function::SetContext(context) => {
            let value = |value: proto::ContextValue| {
                (value.key.into_boxed_str(), value.value.map(String::into_boxed_str))
            };
            Call::SetContext(context.values.into_iter().map(value).collect())
        }
        Function::Subscribe(topics) => Call::Subscribe(names(topics.names)?),
        Function::Unsubscribe(topics) => Call::Unsubscribe(names(topics.names)?),
    })
}

fn target(target: Option<proto::Target>) -> Result<Target, MeshError> {
    use proto::target::Kind;
    let target = target.ok_or(MeshError::Wrong("a target is missing"))?;
    let kind = Kind::try_from(target.kind).map_err(|_| MeshError::Wrong("unknown target"))?;
    Ok(match kind {
        Kind::Conns if target.conns.len() > NAMES_MAX => return Err(too_many()),
        Kind::Conns => Target::Conns(target.conns.into_iter().map(conn_of).collect()),
        Kind::Users => Target::Users(names(target.names)?),
        Kind::Topics => Target::Topics(names(target.names)?),
        Kind::All => Target::All,
    })
}

fn topics(change: proto::TopicChange) -> Result<TopicChange, MeshError> {
    use proto::topic_change::How;
    let how = How::try_from(change.how).map_err(|_| MeshError::Wrong("unknown change"))?;
    let topics = names(change.topics)?;
    Ok(match how {
        How::Add => TopicChange::Add(topics),
        How::Remove => TopicChange::Remove(topics),
        How::Replace => TopicChange::Replace(topics),
    })
}

fn names(names: Vec<String>) -> Result<Vec<Box<str>>, MeshError> {
    if names.len() > NAMES_MAX {
        return Err(too_many());
    }
    Ok(names.into_iter().map(String::into_boxed_str).collect())
}

fn too_many() -> MeshError {
    MeshError::Wrong("too many names")
}

fn payload(payload: proto::Payload) -> Result<Arc<Payload>, MeshError> {
    use proto::payload::Kind as Wire;
    let kind = match Wire::try_from(payload.kind) {
        Ok(Wire::Unspecified) => PayloadKind::Unspecified,
        Ok(Wire::Text) => PayloadKind::Text,
        Ok(Wire::Binary) => PayloadKind::Binary,
        Err(_) => return Err(MeshError::Wrong("unknown kind of payload")),
    };
    let data: Bytes = payload.data;
    Ok(Payload::of_kind(data, kind))
}

/// Bytes of the text of a close frame (RFC 6455 section 5.5).
const REASON_BYTES_MAX: usize = 123;

fn reason(code: u32, text: &str) -> Result<CloseReason, MeshError> {
    let code = u16::try_from(code).ok();
    // RFC 6455 section 7.4: these stand in no close frame.
    let code =
        code.filter(|code| matches!(code, 1000..=4999) && !matches!(code, 1005 | 1006 | 1015));
    let code = code.ok_or(MeshError::Wrong("no close code"))?;
    match text.len() <= REASON_BYTES_MAX {
        true => Ok(CloseReason { code, text: text.to_owned().into() }),
        false => Err(MeshError::Wrong("a close reason that is too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|&name| name.into()).collect()
    }

    fn commands() -> Vec<Command> {
        let payload = Payload::of_kind(Bytes::from_static(b"\0data"), PayloadKind::Binary);
        let conns = Target::Conns(vec![ConnId::new(1, 2, 3), ConnId::new(255, 77, u32::MAX)]);
        const REASON: CloseReason = CloseReason::new(1008, "forceOffline");
        let push = |target| Command::Push { target, payloads: vec![payload.clone(); 2] };
        let update = |topics, session: Option<&str>, user: Option<&str>| Command::Update {
            conn: ConnId::new(3, 4, 5),
            change: Change { topics, session: session.map(Box::from), user: user.map(Box::from) },
            payload: Some(payload.clone()),
        };
        let kick = |target, guests_only| Command::Kick {
            target,
            payload: None,
            reason: REASON,
            guests_only,
        };
        let calls = |call| Command::Call { conn: ConnId::new(1, 1, 1), call };
        vec![
            push(conns.clone()),
            push(Target::Users(names(&["u", ""]))),
            push(Target::Topics(names(&["t"]))),
            push(Target::All),
            update(Some(TopicChange::Add(names(&["a", "b"]))), None, Some("")),
            update(Some(TopicChange::Remove(names(&["a"]))), Some("s"), None),
            update(Some(TopicChange::Replace(Vec::new())), Some(""), Some("u")),
            update(None, None, None),
            Command::DeleteTopics { topics: names(&["a"]), payload: Some(payload.clone()) },
            kick(conns, true),
            kick(Target::All, false),
            calls(Call::SetContext(vec![
                ("\"k\"".into(), Some("1".into())),
                ("\"l\"".into(), None),
            ])),
            calls(Call::Subscribe(names(&["a", "b"]))),
            calls(Call::Unsubscribe(names(&["a"]))),
            Command::Displace {
                conn: ConnId::new(1, 1, 1),
                login: ["user", "platform", "device"].map(Box::from),
            },
            Command::Room(Arc::new(RoomMessage {
                topic: "cr:lobby".into(),
                element: Bytes::from_static(b"element"),
                content: Some(payload),
                sender: None,
            })),
        ]
    }

    #[test]
    fn every_command_arrives_as_it_was_sent() {
        for command in commands() {
            let there = decode(whole(1, &command).command).expect("valid");
            assert_eq!(format!("{there:?}"), format!("{command:?}"));
        }
    }

    #[test]
    fn what_is_for_members_is_cut_by_bucket_and_what_is_for_connections_stays() {
        let lanes = |command: &Command| parts(command).into_iter().map(|p| p.lane).collect();
        let all: Vec<Vec<Lane>> = commands().iter().map(lanes).collect();
        let bucket = |space, name| Lane::Bucket(Bucket::of(space, name));
        let users: Vec<_> = ["", "u"].map(|name| bucket(Space::Users, name)).into();
        assert!(all[0].is_empty() && all[4].is_empty() && all[9].is_empty());
        let mut found = all[1].clone();
        found.sort();
        let mut expected = users;
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(all[2], [bucket(Space::Topics, "t")]);
        assert_eq!((&all[3][..], &all[10][..]), (&[Lane::All][..], &[Lane::All][..]));
        assert_eq!(all[8], [bucket(Space::Topics, "a")]);
        assert!(all[11].is_empty() && all[12].is_empty());
        assert_eq!(all[15], [bucket(Space::Topics, "cr:lobby")]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let push = |target| proto::Command {
            what: Some(What::Push(proto::Push { target, payloads: Vec::new() })),
        };
        let target = proto::Target { kind: 9, ..Default::default() };
        for command in [proto::Command { what: None }, push(None), push(Some(target))] {
            assert!(decode(command).is_err());
        }
    }

    #[test]
    fn a_reason_is_kept_as_it_is() {
        assert_eq!(reason(4000, "new"), Ok(CloseReason::new(4000, "new")));
        assert!(reason(4000, &"x".repeat(124)).is_err(), "no close frame has room for it");
        assert_eq!(reason(1001, "kick"), Ok(CloseReason::new(1001, "kick")));
        assert!(reason(65_536, "kick").is_err());
    }
}
