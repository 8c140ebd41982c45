//! netsvr business processes: what a frame of theirs asks for (netsvr sections 6.3 to 6.8), and the
//! responses to their queries.
//!
//! Pure functions. What needs more than the frame (connections, registrations, limiters) is left
//! to the shard. Costs of a push: the target list, the list of payloads and one shared payload,
//! which is a slice of the frame.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use crate::hub::ConnId;
use crate::hub::push::{Change, CloseReason, Command, Payload, Target, TopicChange};
use crate::hub::queries::{Answer, Info, Query, Want};
use crate::protocols::netsvr::wire::requests::{
    self, Bulk, Cast, GuestKick, Name, Question, TopicUpdate,
};
use crate::protocols::netsvr::wire::{DecodeError, Generation, answers};
use crate::wire::worker::{Cmd, Named, UniqId, UniqIds};

/// What one frame asks to be carried out: nearly always one command.
pub type Commands = SmallVec<[Command; 1]>;

/// What a frame asks for.
#[derive(Debug)]
pub enum BackendRequest {
    /// Nothing, for a reason that belongs into the log.
    Ignore(String),
    /// Carry these out, in order. Often none: a command that names nobody or has nothing to send is
    /// in order.
    Commands(Commands),
    /// Carry this out after so many seconds.
    GuestKickLater { delay_s: u32, command: Command },
    /// Ask all shards; [`answer`] makes the response.
    Ask { query: Query, shape: Shape },
    /// The response, without asking anybody.
    Answer(Bytes),
    /// Wants events, a mask of section 4.2.
    Register { events: i32 },
    /// Wants a `RegisterResp` with code 1.
    RegisterUndecodable,
    /// Wants the registration of this name ended; an `UnRegisterResp` follows in any case.
    Unregister { conn_id: String },
    /// Wants a `MetricsResp`.
    Metrics,
    /// Wants the limiters set to the values above 0, and a `LimitResp`.
    Limit { on_open: i32, on_message: i32 },
}

/// What becomes of the answer to a query: which response, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// The response of that command, from the answer alone.
    Plain(Cmd),
    /// `ConnInfoByCustomerIdResp`.
    CustomerInfos { with_uniq_ids: bool },
    /// `TopicCustomerIdToUniqIdsListResp` of generation 6, which has all connections of a customer
    /// that has one in the topic: first the customers of the topics ...
    TopicCustomers,
    /// ... then their connections.
    TopicCustomerConns(Vec<(Arc<str>, Vec<Arc<str>>)>),
}

/// What follows an answer.
#[derive(Debug)]
pub enum Next {
    /// The response frame.
    Done(Bytes),
    /// The response needs another round over all shards.
    Ask(Query, Shape),
}

/// Reads a frame of a business connection. Every query gives something that leads to exactly one
/// response; one that cannot be read gets the empty response of its command (section 3.6).
pub fn request(cmd: Cmd, body: Bytes, ids: &UniqIds, generation: Generation) -> BackendRequest {
    let read = match cmd.is_one_way() {
        true => one_way(cmd, body, ids, generation),
        false => query(cmd, body, ids, generation),
    };
    read.unwrap_or_else(|error| match cmd {
        Cmd::Register => BackendRequest::RegisterUndecodable,
        _ if cmd.is_one_way() => BackendRequest::Ignore(error.to_string()),
        _ => BackendRequest::Answer(answers::empty(cmd)),
    })
}

/// The connections that a query names, those of other gateways included, in its order.
pub fn asked(body: Bytes, ids: &UniqIds) -> Vec<UniqId> {
    requests::question(body, ids).map(|question| question.targets).unwrap_or_default()
}

/// The response to a query, or the next round. `answer` is the finished answer of all shards to the
/// query that came with the shape.
pub fn answer<C: Named>(shape: Shape, answer: Answer<C>, ids: &C::Ids) -> Next {
    let cmd = match shape.0 {
        Form::Plain(cmd) => cmd,
        Form::CustomerInfos { with_uniq_ids } => {
            return Next::Done(customer_infos(answer, with_uniq_ids, ids));
        }
        Form::TopicCustomers => return ask_customer_conns(answer),
        Form::TopicCustomerConns(topics) => {
            return Next::Done(topic_customer_conns(&topics, answer, ids));
        }
    };
    Next::Done(match (cmd, answer) {
        (Cmd::CheckOnline, Answer::Online(conns)) | (Cmd::UniqIdList, Answer::Conns(conns)) => {
            answers::uniq_ids(cmd, &conns, ids)
        }
        (Cmd::UniqIdCount, Answer::ConnCount(count)) => answers::count(cmd, count),
        (Cmd::CustomerIdList, Answer::Users(names)) | (Cmd::TopicList, Answer::Topics(names)) => {
            answers::names(cmd, &names)
        }
        (Cmd::CustomerIdCount, Answer::Users(names)) | (Cmd::TopicCount, Answer::Topics(names)) => {
            answers::count(cmd, names.len() as u64)
        }
        (Cmd::TopicUniqIdList, Answer::TopicConns(topics)) => {
            answers::topic_uniq_ids(lists(&topics), ids)
        }
        (Cmd::TopicUniqIdCount, Answer::TopicConnCount(topics)) => {
            answers::topic_counts(cmd, topics.iter().map(|(topic, count)| (&**topic, *count)))
        }
        (Cmd::TopicCustomerIdList, Answer::TopicUsers(topics)) => {
            answers::topic_customer_ids(lists(&topics))
        }
        (Cmd::TopicCustomerIdCount, Answer::TopicUsers(topics)) => {
            let count = |(topic, users): (_, &[Arc<str>])| (topic, users.len() as u64);
            answers::topic_counts(cmd, lists(&topics).map(count))
        }
        (Cmd::TopicCustomerIdToUniqIdsList, Answer::TopicUserConns(topics)) => {
            let topics = topics.iter().map(|(topic, users)| (&**topic, lists(users)));
            answers::topic_customer_uniq_ids(topics, ids)
        }
        (Cmd::ConnInfo, Answer::ConnInfo(infos)) => {
            answers::conn_infos(infos.iter().map(conn_info), ids)
        }
        (cmd, _) => mismatch(cmd),
    })
}

/// A response that is made of an answer in several parts, which are finished one by one and have no
/// name in common.
#[derive(Debug)]
pub struct Response {
    shape: Shape,
    /// Of the responses that are a number.
    count: u64,
    chunks: Vec<Bytes>,
}

impl Response {
    /// Nothing is in it. `None`: only the whole answer leads to this response, by [`answer`].
    pub fn new(shape: &Shape) -> Option<Response> {
        match shape.0 {
            Form::TopicCustomers | Form::TopicCustomerConns(_) => None,
            Form::Plain(_) | Form::CustomerInfos { .. } => {
                Some(Response { shape: shape.clone(), count: 0, chunks: Vec::new() })
            }
        }
    }

    /// Adds the next part.
    pub fn add<C: Named>(&mut self, part: Answer<C>, ids: &C::Ids) {
        match (self.counted(), &part) {
            (Some(_), Answer::Users(names) | Answer::Topics(names)) => {
                self.count += names.len() as u64;
            }
            _ => {
                if let Next::Done(frame) = answer(self.shape.clone(), part, ids) {
                    self.chunks.push(frame);
                }
            }
        }
    }

    /// The frame, in pieces.
    pub fn finish(self) -> Vec<Bytes> {
        match (self.counted(), self.shape.0) {
            (Some(cmd), _) => vec![answers::count(cmd, self.count)],
            (None, Form::Plain(cmd)) => answers::join(cmd, self.chunks),
            (None, _) => answers::join(Cmd::ConnInfoByCustomerId, self.chunks),
        }
    }

    /// The command, if the response says how many names there are.
    fn counted(&self) -> Option<Cmd> {
        match self.shape.0 {
            Form::Plain(cmd @ (Cmd::CustomerIdCount | Cmd::TopicCount)) => Some(cmd),
            _ => None,
        }
    }
}

/// Why clients are closed by the commands of the `ForceOffline` family (section 6.6).
pub const FORCE_OFFLINE: CloseReason = CloseReason::new(1008, "forceOffline");
/// See [`FORCE_OFFLINE`].
pub const FORCE_OFFLINE_BY_CUSTOMER_ID: CloseReason =
    CloseReason::new(1008, "forceOfflineByCustomerId");
/// See [`FORCE_OFFLINE`].
pub const FORCE_OFFLINE_GUEST: CloseReason = CloseReason::new(1008, "forceOfflineGuest");

fn one_way(
    cmd: Cmd,
    body: Bytes,
    ids: &UniqIds,
    generation: Generation,
) -> Result<BackendRequest, DecodeError> {
    let command = match cmd {
        Cmd::ConnInfoUpdate => info_update(requests::info_update(body, ids)?),
        Cmd::ConnInfoDelete => info_delete(requests::info_delete(body, ids)?),
        Cmd::Broadcast => push(Target::All, requests::broadcast(body)?),
        Cmd::Multicast => cast(requests::cast(body, ids)?, Target::Conns),
        Cmd::MulticastByCustomerId => cast(requests::cast(body, ids)?, Target::Users),
        Cmd::SingleCast => cast(requests::single_cast(body, ids)?, Target::Conns),
        Cmd::SingleCastByCustomerId => cast(requests::single_cast(body, ids)?, Target::Users),
        Cmd::TopicPublish => cast(requests::cast(body, ids)?, Target::Topics),
        Cmd::SingleCastBulk => return Ok(bulk(requests::bulk(body, ids)?, Target::Conns, payload)),
        Cmd::SingleCastBulkByCustomerId => {
            return Ok(bulk(requests::bulk(body, ids)?, Target::Users, payload));
        }
        Cmd::TopicPublishBulk => {
            let of_many = match generation {
                Generation::G5 => payload,
                Generation::G6 => |data| Some(Payload::new(data)),
            };
            return Ok(bulk(requests::bulk(body, ids)?, Target::Topics, of_many));
        }
        Cmd::TopicSubscribe => topic_update(requests::topic_update(body, ids)?, TopicChange::Add),
        Cmd::TopicUnsubscribe => {
            topic_update(requests::topic_update(body, ids)?, TopicChange::Remove)
        }
        Cmd::TopicDelete => {
            let Cast { targets: topics, data } = requests::cast(body, ids)?;
            let payload = payload(data);
            (!topics.is_empty()).then_some(Command::DeleteTopics { topics, payload })
        }
        Cmd::ForceOffline => kick(requests::cast(body, ids)?, Target::Conns, FORCE_OFFLINE),
        Cmd::ForceOfflineByCustomerId => {
            kick(requests::cast(body, ids)?, Target::Users, FORCE_OFFLINE_BY_CUSTOMER_ID)
        }
        Cmd::ForceOfflineGuest => return Ok(guest_kick(requests::guest_kick(body, ids)?)),
        _ => None,
    };
    Ok(BackendRequest::Commands(Commands::from_iter(command)))
}

fn query(
    cmd: Cmd,
    body: Bytes,
    ids: &UniqIds,
    generation: Generation,
) -> Result<BackendRequest, DecodeError> {
    let mut shape = Shape(Form::Plain(cmd));
    let query = match cmd {
        Cmd::Register => {
            let [events, _] = requests::numbers(body)?;
            return Ok(BackendRequest::Register { events });
        }
        Cmd::Unregister => {
            return Ok(BackendRequest::Unregister { conn_id: requests::conn_id(body)? });
        }
        Cmd::Metrics => return Ok(BackendRequest::Metrics),
        Cmd::Limit => {
            let [on_open, on_message] = requests::numbers(body)?;
            return Ok(BackendRequest::Limit { on_open, on_message });
        }
        Cmd::CheckOnline => Query::Online(requests::question(body, ids)?.targets),
        Cmd::CustomerIdList | Cmd::CustomerIdCount => Query::Users,
        Cmd::UniqIdList => Query::Conns,
        Cmd::UniqIdCount => Query::ConnCount,
        Cmd::TopicList | Cmd::TopicCount => Query::Topics,
        Cmd::TopicUniqIdList => Query::TopicConns(requests::question(body, ids)?.targets),
        Cmd::TopicUniqIdCount => Query::TopicConnCount(topics(requests::question(body, ids)?)),
        Cmd::TopicCustomerIdList => Query::TopicUsers(Some(requests::question(body, ids)?.targets)),
        Cmd::TopicCustomerIdCount => Query::TopicUsers(topics(requests::question(body, ids)?)),
        Cmd::TopicCustomerIdToUniqIdsList => {
            let topics = requests::question(body, ids)?.targets;
            match generation {
                Generation::G5 => Query::TopicUserConns(topics),
                Generation::G6 => {
                    shape = Shape(Form::TopicCustomers);
                    Query::TopicUsers(Some(topics))
                }
            }
        }
        Cmd::ConnInfo => {
            let Question { targets: conns, flags: [session, user, topics] } =
                requests::question(body, ids)?;
            Query::ConnInfo { conns, want: Want { session, user, topics } }
        }
        Cmd::ConnInfoByCustomerId => {
            let Question { targets: users, flags: [session, with_uniq_ids, topics] } =
                requests::question(body, ids)?;
            shape = Shape(Form::CustomerInfos { with_uniq_ids });
            Query::UserInfo { users, want: Want { session, user: false, topics } }
        }
        _ => return Ok(BackendRequest::Ignore(format!("{cmd:?} is not for the gateway"))),
    };
    Ok(BackendRequest::Ask { query, shape })
}

/// The topics of a count; `None` is all of them.
fn topics(question: Question<Box<str>>) -> Option<Vec<Box<str>>> {
    let [count_all, ..] = question.flags;
    (!count_all).then_some(question.targets)
}

fn payload(data: Bytes) -> Option<Arc<Payload>> {
    (!data.is_empty()).then(|| Payload::new(data))
}

fn push(target: Target, data: Bytes) -> Option<Command> {
    Some(Command::Push { target, payloads: vec![payload(data)?] })
}

fn cast<T: Name>(cast: Cast<T>, target: fn(Vec<T>) -> Target) -> Option<Command> {
    if cast.targets.is_empty() {
        return None;
    }
    push(target(cast.targets), cast.data)
}

/// The table of section 6.4, and the row `TopicPublishBulk` of section 6.5. `of_many` decides what
/// becomes of each of several payloads for one target: to topics generation 6 sends empty ones,
/// everything else skips them.
fn bulk<T: Name>(
    bulk: Bulk<T>,
    target: fn(Vec<T>) -> Target,
    of_many: fn(Bytes) -> Option<Arc<Payload>>,
) -> BackendRequest {
    let Bulk { mut targets, data } = bulk;
    let (n, m) = (targets.len(), data.len());
    if n == 1 && m > 1 {
        let payloads: Vec<_> = data.into_iter().filter_map(of_many).collect();
        let command = targets
            .pop()
            .flatten()
            .filter(|_| !payloads.is_empty())
            .map(|name| Command::Push { target: target(vec![name]), payloads });
        return BackendRequest::Commands(Commands::from_iter(command));
    }
    if n == 0 || n != m {
        return BackendRequest::Ignore(format!("{m} payloads for {n} targets"));
    }
    let pairs = targets.into_iter().zip(data);
    let pushes = pairs.filter_map(|(name, data)| push(target(vec![name?]), data));
    BackendRequest::Commands(pushes.collect())
}

fn info_update(update: requests::InfoUpdate) -> Option<Command> {
    let some = |text: Box<str>| (!text.is_empty()).then_some(text);
    let change = Change {
        topics: update.topics.map(TopicChange::Replace),
        session: some(update.session),
        user: some(update.customer_id),
    };
    change_of(update.conn?, change, update.data)
}

fn info_delete(delete: requests::InfoDelete) -> Option<Command> {
    let change = Change {
        topics: delete.topics.then(|| TopicChange::Replace(Vec::new())),
        session: delete.session.then(Box::default),
        user: delete.customer_id.then(Box::default),
    };
    change_of(delete.conn?, change, delete.data)
}

/// An empty list means nothing at all; one of empty strings, that only the payload is sent.
fn topic_update(update: TopicUpdate, change: fn(Vec<Box<str>>) -> TopicChange) -> Option<Command> {
    let topics = Some(update.topics?).filter(|topics| !topics.is_empty());
    let change = Change { topics: topics.map(change), ..Change::default() };
    change_of(update.conn?, change, update.data)
}

fn change_of(conn: ConnId, change: Change, data: Bytes) -> Option<Command> {
    let payload = payload(data);
    let any = payload.is_some() || change != Change::default();
    any.then_some(Command::Update { conn, change, payload })
}

fn kick<T>(cast: Cast<T>, target: fn(Vec<T>) -> Target, reason: CloseReason) -> Option<Command> {
    let Cast { targets, data } = cast;
    (!targets.is_empty()).then(|| {
        let (target, payload) = (target(targets), payload(data));
        Command::Kick { target, payload, reason, guests_only: false }
    })
}

fn guest_kick(kick: GuestKick) -> BackendRequest {
    if kick.targets.is_empty() {
        return BackendRequest::Commands(Commands::new());
    }
    let command = Command::Kick {
        target: Target::Conns(kick.targets),
        payload: payload(kick.data),
        reason: FORCE_OFFLINE_GUEST,
        guests_only: true,
    };
    match u32::try_from(kick.delay) {
        Ok(delay_s @ 1..) => BackendRequest::GuestKickLater { delay_s, command },
        _ => BackendRequest::Commands(smallvec![command]),
    }
}

/// The entries of an answer, borrowed.
fn lists<T>(items: &[(Arc<str>, Vec<T>)]) -> impl Iterator<Item = (&str, &[T])> + Clone {
    items.iter().map(|(name, list)| (&**name, &list[..]))
}

fn conn_info<C: Copy>(info: &Info<C>) -> (C, answers::ConnInfo<'_, Arc<str>>) {
    let Info { conn, session, user, topics } = info;
    (*conn, answers::ConnInfo { session, customer_id: user, topics })
}

fn customer_infos<C: Named>(answer: Answer<C>, with_uniq_ids: bool, ids: &C::Ids) -> Bytes {
    let Answer::UserInfo(users) = answer else {
        return mismatch(Cmd::ConnInfoByCustomerId);
    };
    let users = lists(&users).map(|(user, infos)| (user, infos.iter().map(conn_info)));
    answers::customer_infos(users, with_uniq_ids, ids)
}

fn ask_customer_conns<C>(answer: Answer<C>) -> Next {
    let Answer::TopicUsers(topics) = answer else {
        return Next::Done(mismatch(Cmd::TopicCustomerIdToUniqIdsList));
    };
    let mut users: Vec<&Arc<str>> = topics.iter().flat_map(|(_, users)| users).collect();
    users.sort_unstable();
    users.dedup();
    let users = users.into_iter().map(|user| Box::from(&**user)).collect();
    Next::Ask(Query::UserConns(users), Shape(Form::TopicCustomerConns(topics)))
}

/// A customer who left between the rounds is left out.
fn topic_customer_conns<C: Named>(
    topics: &[(Arc<str>, Vec<Arc<str>>)],
    answer: Answer<C>,
    ids: &C::Ids,
) -> Bytes {
    let Answer::UserConns(users) = answer else {
        return mismatch(Cmd::TopicCustomerIdToUniqIdsList);
    };
    let conns: HashMap<&str, &[C]> = lists(&users).collect();
    let found = |user: &Arc<str>| conns.get_key_value(&**user).map(|(user, conns)| (*user, *conns));
    let topics: Vec<(&str, Vec<_>)> = lists(topics)
        .map(|(topic, users)| (topic, users.iter().filter_map(found).collect()))
        .collect();
    let topics = topics.iter().map(|(topic, users)| (*topic, users.iter().copied()));
    answers::topic_customer_uniq_ids(topics, ids)
}

/// An answer to another query is a mistake of the caller; the business still gets one response.
fn mismatch(cmd: Cmd) -> Bytes {
    debug_assert!(false, "this is no answer for {cmd:?}");
    answers::empty(cmd)
}
