//! What must hold when a story is over.

use std::collections::{HashMap, HashSet};

use prost::Message;
use ringway::config::model::{MessageType, SlowClient, WorkerPick};
use ringway::engine::ops::Machine;
use ringway::metrics::{Counters, DropReason};
use ringway::protocols::netsvr::limits::ANSWER_PIECE;
use ringway::sim::Socket;
use ringway::wire::worker::proto::{self, Cmd};

use crate::peers::{Business, Client, Expect, Kind, Question, REFUSED, parse};
use crate::plan::{Ending, VERDICT_DATA};
use crate::story::{Story, To};
use crate::streams::{self, Event, Frame, Told};

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nUpgrade: websocket\r\n";
const EXTENSIONS: &str = "sec-websocket-extensions: permessage-deflate; \
    server_no_context_takeover; client_no_context_takeover\r\n";

/// What happened in the story and is worth counting over many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub events: u64,
    pub rerouted: u64,
    pub pushes: u64,
    pub answers: u64,
    pub dropped: [u64; DropReason::ALL.len()],
}

/// All counters of all shards.
fn counters(story: &Story) -> Counters {
    let mut sum = Counters::default();
    for (counters, _) in story.world.shards().map(|shard| shard.report()) {
        sum.opens += counters.opens;
        sum.closes += counters.closes;
        sum.heartbeats += counters.heartbeats;
        sum.messages_received += counters.messages_received;
        sum.events += counters.events;
        sum.events_rerouted += counters.events_rerouted;
        sum.frames_written += counters.frames_written;
        sum.queries += counters.queries;
        for (sum, count) in sum.dropped.iter_mut().zip(counters.dropped) {
            *sum += count;
        }
    }
    sum
}

fn dropped(counters: &Counters, reasons: &[DropReason]) -> u64 {
    reasons.iter().map(|reason| counters.dropped[*reason as usize]).sum()
}

/// Panics at the first thing that is wrong.
pub fn check(story: &Story) -> Summary {
    let counters = counters(story);
    let pushes = clients(story, &counters);
    let events = events(story, &counters);
    let answers = story.businesses.iter().map(|business| answers(story, business)).sum();
    Summary {
        events,
        rerouted: counters.events_rerouted,
        pushes,
        answers,
        dropped: counters.dropped,
    }
}

/// What came to the clients. Returns how many pushes that were.
fn clients(story: &Story, counters: &Counters) -> u64 {
    let mut handed = 0;
    let mut delivered: HashMap<(usize, (usize, usize)), usize> = HashMap::new();
    for client in &story.clients {
        let socket = story.world.socket(client.peer);
        match client.kind {
            Kind::Refused(row) => refused(client, row, socket),
            Kind::Silent => assert!(socket.written.is_empty(), "an answer to half a request"),
            Kind::Netsvr | Kind::Echo => {
                let sent = streams::client(&socket.sent);
                assert_eq!(sent.rest, 0, "client {}: half a frame was sent", client.number);
                let data = |frame: &&Frame| matches!(frame, Frame::Data { .. });
                handed += sent.frames.iter().filter(data).count() as u64;
                let stream = streams::client(&socket.written);
                let cut = socket.sent.len() > socket.sure;
                assert!(stream.rest == 0 || cut, "client {}: half a frame", client.number);
                upgraded(story, client, &stream.head);
                if !stream.head.is_empty() {
                    frames(story, client, &stream.frames, cut, &mut delivered);
                }
            }
        }
    }
    assert_eq!(handed, counters.frames_written, "frames sent to clients and the counter of them");
    due(story, counters, &delivered);
    delivered.values().map(|copies| *copies as u64).sum()
}

fn refused(client: &Client, row: usize, socket: &Socket) {
    let expected = format!("HTTP/1.1 {}", REFUSED[row].1).into_bytes();
    let written = &socket.written[..];
    let cut = socket.sent.len() > socket.sure;
    let whole = !client.survived || cut || written == expected;
    assert!(whole && expected.starts_with(written), "{}", String::from_utf8_lossy(written));
}

fn upgraded(story: &Story, client: &Client, head: &[u8]) {
    let level = story.plan.config.netsvr.customer.compression_level;
    let extensions = if client.deflate && level != 0 { EXTENSIONS } else { "" };
    let expected = format!("{SWITCHING}{extensions}\r\n").into_bytes();
    assert!(expected.starts_with(head), "{}", String::from_utf8_lossy(head));
    assert!(!client.survived || head == expected, "client {} got half a head", client.number);
}

fn frames(
    story: &Story,
    client: &Client,
    frames: &[Frame],
    cut: bool,
    delivered: &mut HashMap<(usize, (usize, usize)), usize>,
) {
    let who = client.number;
    let (mut pongs, mut data) = (Vec::new(), Vec::new());
    for (place, frame) in frames.iter().enumerate() {
        match frame {
            Frame::Data { text, payload } => data.push((*text, &payload[..])),
            Frame::Pong(payload) => pongs.push(&payload[..]),
            Frame::Close(payload) => {
                assert_eq!(place + 1, frames.len(), "client {who}: a frame after the close frame");
                assert!(
                    may_close(story, client, payload),
                    "client {who} was closed: {}",
                    String::from_utf8_lossy(payload)
                );
            }
        }
    }
    // Of pings that came while a send was stalled the newest alone is answered.
    let mut last = 0;
    for pong in pongs {
        let number = pong.strip_prefix(b"ping ").and_then(|n| str::from_utf8(n).ok()?.parse().ok());
        let number: usize = number.expect("what a ping had");
        assert!(last < number, "client {who}: pong {number} behind pong {last}");
        last = number;
    }
    assert!(!client.survived || last == client.pings, "client {who}: pong {last} is the last");
    // What the gateway ends, it ends with a close frame.
    let told = client.left || cut || matches!(frames.last(), Some(Frame::Close(_)));
    assert!(told, "client {who} was closed without a close frame");
    match client.kind {
        Kind::Echo => echoes(client, &data),
        _ => pushed(story, client, &data, delivered),
    }
}

/// Whether a close frame is one that this client may get (netsvr sections 2.4 to 2.7).
fn may_close(story: &Story, client: &Client, payload: &[u8]) -> bool {
    let config = &story.plan.config;
    let customer = &config.netsvr.customer;
    let weather = &story.plan.weather;
    let asks = customer.on_open_callback_api.is_some();
    let drains = story.plan.ending == Ending::Drain;
    let limited = customer.max_online < 100 || story.plan.limits;
    let close = config.runtime.slow_client == SlowClient::Close;
    let netsvr = client.kind == Kind::Netsvr;
    let general: [(bool, u16, &str); 8] = [
        (true, 1001, "heartbeat timeout"),
        (!client.steady, 1008, "forceOfflineByCustomerId"),
        (drains, 1001, "server shutdown"),
        (drains, 1012, "service restart"),
        (netsvr && close, 1008, "slow consumer"),
        (asks && weather.callback_denies_percent > 0, 1008, "unauthorized"),
        (asks && weather.callback_fails_percent > 0, 1011, "open callback failed"),
        (netsvr && limited, 1013, "open rate limited, try again later"),
    ];
    let reason = |code: u16, text: &str| [&code.to_be_bytes()[..], text.as_bytes()].concat();
    let mut general = general.into_iter().filter(|(may, ..)| *may);
    general.any(|(_, code, text)| payload == reason(code, text))
        || client.closes.iter().any(|close| close == payload)
}

fn echoes(client: &Client, data: &[(bool, &[u8])]) {
    let sent = (0..client.sent.len()).map(|seq| client.payload(seq));
    let matching = data.iter().zip(sent).filter(|((_, data), sent)| data == sent).count();
    assert_eq!(matching, data.len(), "echo client {}: the echo differs", client.number);
    let whole = !client.survived || data.len() == client.sent.len();
    assert!(whole, "echo client {}: {} of {}", client.number, data.len(), client.sent.len());
}

/// Pushes: only what was meant for this client, not too often, in the order of each backend.
fn pushed(
    story: &Story,
    client: &Client,
    data: &[(bool, &[u8])],
    delivered: &mut HashMap<(usize, (usize, usize)), usize>,
) {
    let text = story.plan.config.netsvr.customer.send_message_type == MessageType::Text;
    let mut last: HashMap<usize, usize> = HashMap::new();
    for (place, (is_text, payload)) in data.iter().enumerate() {
        assert_eq!(*is_text, text, "opcode of a push");
        if place == 0 && story.plan.verdicts && *payload == VERDICT_DATA.as_bytes() {
            continue;
        }
        let (backend, seq) = parse('p', payload);
        let push = &story.pushes[&(backend, seq)];
        let what = format!("push {seq} of backend {backend} to client {}", client.number);
        let copies = delivered.entry((client.number, (backend, seq))).or_insert(0);
        *copies += 1;
        assert!(*copies <= push.copies, "{what} came {copies} times");
        if let To::Clients(clients) = &push.to {
            assert!(clients.contains(&client.number), "{what} was for {clients:?}");
        }
        if !push.delayed {
            let last = last.entry(backend).or_insert(seq);
            assert!(*last <= seq, "{what} came after {last}");
            *last = seq;
        }
    }
}

/// What a surviving client of a surviving backend did not get was counted as dropped.
fn due(story: &Story, counters: &Counters, delivered: &HashMap<(usize, (usize, usize)), usize>) {
    let mut missing = Vec::new();
    for due in &story.dues {
        if story.clients[due.client].survived && !story.businesses[due.push.0].lost {
            let copies = delivered.get(&(due.client, due.push)).copied().unwrap_or(0);
            missing.extend((copies..due.copies).map(|_| (due.client, due.push)));
        }
    }
    let dropped = dropped(counters, &[DropReason::SlowClient, DropReason::Closing]);
    assert!(missing.len() as u64 <= dropped, "{dropped} dropped, but missing are {missing:?}");
}

/// Where an event stands in the life of its client.
fn stage(event: &Event, client: &Client) -> usize {
    match event {
        Event::Open { query, address } => {
            let expected = format!("c={}", client.number);
            assert_eq!((&query[..], &address[..]), (&expected[..], "127.0.0.1"));
            0
        }
        Event::Transfer { data, .. } => {
            let (who, seq) = parse('m', data);
            assert_eq!(who, client.number, "a message of another client");
            1 + seq
        }
        Event::Close { .. } => usize::MAX,
    }
}

/// Events to workers: each exactly once, or counted. Returns how many.
fn events(story: &Story, counters: &Counters) -> u64 {
    let mut delivery = Delivery::default();
    let clients = story.clients.iter().map(|client| client.number);
    let ids = clients.filter_map(|client| Some((story.uniq_id(client)?, client))).collect();
    for business in &story.businesses {
        worker(story, business, &ids, &mut delivery);
    }
    let Delivery { sure, inversions, homes } = delivery;
    let rerouted = counters.events_rerouted;
    assert!(inversions <= rerouted, "{inversions} inversions, but {rerouted} given again");
    let pick = story.plan.config.netsvr.worker.pick;
    let none = |wanted: &dyn Fn(&Business) -> bool| !story.businesses.iter().any(wanted);
    if pick == WorkerPick::Sticky && story.plan.whole_masks && none(&|b| b.leaves) {
        assert_eq!(inversions, 0, "a client's events are in order even after a worker was lost");
        if none(&|b| b.lost) && rerouted == 0 && !story.plan.hasty {
            for (client, homes) in homes {
                assert_eq!(homes.len(), 1, "events of client {client} went to {homes:?}");
            }
        }
    }
    let forwarded = forwarded(story, counters);
    let accepted = counters.opens + counters.closes + forwarded;
    use DropReason::{NoWorker, Shutdown, WorkerFull, WorkerLost};
    let dropped = dropped(counters, &[NoWorker, WorkerFull, WorkerLost, Shutdown]);
    assert_eq!(counters.opens, counters.closes, "opens and closes");
    assert_eq!(
        accepted,
        sure.len() as u64 + dropped,
        "{} opened, {} closed, {forwarded} messages, but {} delivered and {dropped} dropped",
        counters.opens,
        counters.closes,
        sure.len()
    );
    accepted
}

/// Messages of netsvr clients that were to go to a worker.
fn forwarded(story: &Story, counters: &Counters) -> u64 {
    let messages = |clients: &dyn Fn(&Client) -> bool| {
        let clients = story.clients.iter().filter(|client| clients(client));
        clients.map(|client| client.sent.len() + client.heartbeats).sum::<usize>() as u64
    };
    let echoes = messages(&|client| client.kind == Kind::Echo && client.survived);
    let received = counters.messages_received - echoes;
    let sent = messages(&|client| client.kind == Kind::Netsvr);
    let certain = messages(&|client| client.kind == Kind::Netsvr && complete(story, client));
    assert!(received <= sent, "{received} messages received of {sent}");
    assert!(received >= certain, "{received} messages received, but {certain} were complete");
    let heartbeats = if story.plan.heartbeats { counters.heartbeats } else { 0 };
    let limiters = [DropReason::ConnectionLimiter, DropReason::MessageLimiter];
    received - heartbeats - dropped(counters, &limiters)
}

/// Whether everything that the client has sent must have been received.
fn complete(story: &Story, client: &Client) -> bool {
    let ended = client.ended_open && !story.plan.hasty && story.plan.ending == Ending::Leave;
    let closed = || {
        let socket = story.world.socket(client.peer);
        let frames = streams::client(&socket.sent).frames;
        let closing = matches!(frames.last(), Some(Frame::Close(_)));
        client.done || closing || socket.sent.len() > socket.sure
    };
    client.survived || (ended && !closed())
}

#[derive(Default)]
struct Delivery {
    /// Client and stage of what is known to be written.
    sure: HashSet<(usize, usize)>,
    /// Events that came to a worker after a later one of the same client.
    inversions: u64,
    /// Workers that got events of a client.
    homes: HashMap<usize, HashSet<usize>>,
}

fn worker(
    story: &Story,
    business: &Business,
    ids: &HashMap<String, usize>,
    delivery: &mut Delivery,
) {
    let socket = story.world.socket(business.peer);
    let (mut offset, mut answers) = (0, 0);
    let mut last: HashMap<usize, usize> = HashMap::new();
    let success = |question: &Question| question.expect == Expect::Registered(0);
    let registered = business.questions.iter().position(success);
    while let Some((frame, size)) = streams::told(&socket.written[offset..], story.generation5) {
        let begin = offset;
        offset += size;
        let Told::Event { uniq_id, event } = frame else {
            answers += 1;
            continue;
        };
        let what = format!("{event:?} of {uniq_id} to backend {}", business.number);
        let answered = registered.is_some_and(|place| answers > place);
        assert!(answered, "{what}, which is not registered");
        assert!(business.silent_from.is_none_or(|len| begin < len), "{what}, which has left");
        let bit = match event {
            Event::Open { .. } => 1,
            Event::Close { .. } => 2,
            Event::Transfer { .. } => 4,
        };
        assert!(business.mask & bit != 0, "{what}, which does not want it");
        let client = &story.clients[*ids.get(&uniq_id).expect("the uniqId of a client")];
        departed(story, client, &event);
        let stage = stage(&event, client);
        let last = last.entry(client.number).or_insert(stage);
        delivery.inversions += (stage < *last) as u64;
        *last = stage;
        delivery.homes.entry(client.number).or_default().insert(business.number);
        if offset <= socket.sure {
            assert!(delivery.sure.insert((client.number, stage)), "{what} for the second time");
        }
    }
}

/// The last event of a client that one backend alone has changed says what that made of it.
fn departed(story: &Story, client: &Client, event: &Event) {
    let Event::Close { user, session, topics } = event else { return };
    let owner = client.owner.map(|owner| &story.businesses[owner]);
    if client.survived && owner.is_none_or(|owner| !owner.lost) {
        let topics: std::collections::BTreeSet<String> = topics.iter().cloned().collect();
        let known = (&client.known.user, &client.known.session, &client.known.topics);
        assert_eq!((user, session, &topics), known, "client {} at its end", client.number);
    }
}

/// Exactly one answer per question, in order. Returns how many.
fn answers(story: &Story, business: &Business) -> u64 {
    let written = &story.world.socket(business.peer).written;
    let (mut offset, mut questions) = (0, business.questions.iter());
    let mut answers = 0;
    while let Some((frame, size)) = streams::told(&written[offset..], story.generation5) {
        offset += size;
        if let Told::Answer { cmd, body } = frame {
            let question = questions.next().expect("an answer belongs to a question");
            assert_eq!(cmd, question.cmd, "the answer to another question");
            answer(story, question, &body);
            answers += 1;
        }
    }
    let missing = questions.count();
    let who = business.number;
    let all = business.lost || story.plan.ending == Ending::Drain || missing == 0;
    assert!(all, "backend {who}: {missing} questions were not answered");
    answers
}

fn answer(story: &Story, question: &Question, body: &[u8]) {
    const WHY: &str = "the answer can be read";
    // A large answer may show what later commands have done.
    let exact = story.plan.weather.answer_piece == ANSWER_PIECE;
    let survived = |client: &&usize| story.clients[**client].survived;
    match &question.expect {
        Expect::Any => readable(question.cmd, body),
        Expect::Empty | Expect::Unregistered(_) => assert!(body.is_empty(), "{question:?}"),
        Expect::Registered(code) => {
            let answer = proto::RegisterResp::decode(body).expect(WHY);
            assert_eq!(answer.code, *code, "{question:?}");
            assert_eq!(answer.conn_id.is_empty(), *code != 0, "{question:?}");
        }
        Expect::Online { asked, clients } => {
            let answer = proto::CheckOnlineResp::decode(body).expect(WHY).uniq_ids;
            let mut rest = asked.iter();
            let in_order = answer.iter().all(|id| rest.any(|asked| asked == id));
            assert!(in_order, "{answer:?} to {question:?}");
            for client in clients.iter().filter(survived) {
                let id = story.uniq_id(*client).expect("it had one when it was asked about");
                let count = |ids: &[String]| ids.iter().filter(|other| **other == id).count();
                assert_eq!(count(&answer), count(asked), "client {client} is online");
            }
        }
        Expect::Info { client, known } => {
            let answer = proto::ConnInfoResp::decode(body).expect(WHY);
            if survived(&client) && exact {
                let id = story.uniq_id(*client).expect("it had one when it was asked about");
                let item = answer.items.get(&id).expect("a registered client");
                let topics = item.topics.iter().cloned().collect();
                let found = (&item.session, &item.customer_id, &topics);
                let expected = (&known.session, &known.user, &known.topics);
                assert_eq!(found, expected, "client {client}, asked by its owner");
            }
        }
        Expect::Members { topic, clients } => {
            let answer = proto::TopicUniqIdListResp::decode(body).expect(WHY);
            let members = answer.items.get(topic).map(|item| &item.uniq_ids[..]).unwrap_or(&[]);
            let each: HashSet<&String> = members.iter().collect();
            assert_eq!(each.len(), members.len(), "each is named once in {topic}");
            for client in story.clients.iter().filter(|client| client.survived && exact) {
                let Some(id) = story.uniq_id(client.number) else { continue };
                let member = clients.contains(&client.number);
                assert_eq!(members.contains(&id), member, "client {} in {topic}", client.number);
            }
        }
        Expect::AtLeast(count) => {
            let answer = proto::UniqIdCountResp::decode(body).expect(WHY);
            assert!(answer.count as usize >= *count, "{} clients of {count}", answer.count);
        }
    }
}

fn readable(cmd: Cmd, body: &[u8]) {
    let ok = match cmd {
        Cmd::UniqIdList => proto::UniqIdListResp::decode(body).is_ok(),
        Cmd::CustomerIdList => proto::CustomerIdListResp::decode(body).is_ok(),
        Cmd::CustomerIdCount => proto::CustomerIdCountResp::decode(body).is_ok(),
        Cmd::TopicList => proto::TopicListResp::decode(body).is_ok(),
        Cmd::TopicCount => proto::TopicCountResp::decode(body).is_ok(),
        Cmd::TopicUniqIdCount => proto::TopicUniqIdCountResp::decode(body).is_ok(),
        Cmd::TopicCustomerIdList => proto::TopicCustomerIdListResp::decode(body).is_ok(),
        Cmd::TopicCustomerIdCount => proto::TopicCustomerIdCountResp::decode(body).is_ok(),
        Cmd::TopicCustomerIdToUniqIdsList => {
            proto::TopicCustomerIdToUniqIdsListResp::decode(body).is_ok()
        }
        Cmd::ConnInfoByCustomerId => proto::ConnInfoByCustomerIdResp::decode(body).is_ok(),
        Cmd::Limit => proto::LimitResp::decode(body).is_ok(),
        Cmd::Metrics => {
            let answer = proto::MetricsResp::decode(body);
            answer.is_ok_and(|answer| answer.items.len() == 13)
        }
        _ => false,
    };
    assert!(ok, "the answer to {cmd:?} can not be read");
}
