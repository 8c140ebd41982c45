//! Backends and other protocols reach IM clients, and are reached (section 16).

use std::time::Duration;

use base64::Engine;
use prost::Message;
use ringway::config::model::Service;
use ringway::protocols::connmix::config::QueueFull;
use ringway::protocols::im::config::Forward;
use ringway::protocols::im::wire::proto::CrMessage;
use ringway::wire::worker::proto;

use crate::common::{Business, Client, Server, cmd, wait_until};
use crate::support::*;

/// uniqIds of all registered connections.
fn online(task: &mut Business) -> Vec<String> {
    let answer: proto::UniqIdListResp = task.ask(cmd::UNIQ_ID_LIST, &());
    answer.uniq_ids
}

fn publish(task: &mut Business, topics: &[&str], data: &str) {
    let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
    let data = data.as_bytes().to_vec().into();
    task.send(cmd::TOPIC_PUBLISH, &proto::TopicPublish { topics, data });
}

/// The only message of a notification, as (sender, room, content, type).
fn only(frame: &Frame) -> (String, String, Vec<u8>, u32) {
    let mut notify = frame.notify();
    assert_eq!(notify.messages.len(), 1);
    let message = notify.messages.remove(0);
    assert!(message.timestamp > 1_700_000_000_000);
    (message.from, notify.chatroom, message.message_content.to_vec(), message.message_type)
}

fn notice(room: &str, content: &str) -> (String, String, Vec<u8>, u32) {
    (String::new(), room.to_owned(), content.as_bytes().to_vec(), 1)
}

#[test]
fn a_publish_of_a_backend_reaches_the_room_once() {
    let server = Server::start(config());
    let mut task = server.task();
    let mut members: Vec<Im> = (0..8).map(|_| Im::guest(&server)).collect();
    members.iter_mut().for_each(|member| member.join("room-7"));
    let mut outside = Im::guest(&server);
    publish(&mut task, &["cr:room-7", "other"], "hello");
    for member in &mut members {
        assert_eq!(only(&member.next()), notice("room-7", "hello"));
    }
    publish(&mut task, &["cr:room-7"], "again");
    for member in &mut members {
        assert_eq!(only(&member.next()), notice("room-7", "again"));
        member.expect_nothing();
    }
    outside.expect_nothing();
}

#[test]
fn pushes_to_a_connection_a_user_and_all_belong_to_no_room() {
    let server = Server::start(config());
    let mut task = server.task();
    let mut user = Im::user(&server, "u1001");
    let mut websocket = Im::websocket(&server);
    websocket.log_in("u2002");
    let uniq_ids = online(&mut task);
    assert_eq!(uniq_ids.len(), 2, "guests and users are registered");
    uniq_ids.iter().for_each(|uniq_id| task.single_cast(uniq_id, "to one"));
    let data = || b"to the user".to_vec().into();
    let to_user = proto::SingleCastByCustomerId { customer_id: "u2002".to_owned(), data: data() };
    task.send(cmd::SINGLE_CAST_BY_CUSTOMER_ID, &to_user);
    task.send(cmd::BROADCAST, &proto::Broadcast { data: b"to all".to_vec().into() });
    assert_eq!(only(&user.next()), notice("", "to one"));
    assert_eq!(only(&user.next()), notice("", "to all"));
    for content in ["to one", "to the user", "to all"] {
        assert_eq!(only(&websocket.next()), notice("", content));
    }
    let mut new = Im::tcp(&server);
    task.send(cmd::BROADCAST, &proto::Broadcast { data: b"later".to_vec().into() });
    assert_eq!(only(&user.next()), notice("", "later"));
    assert_eq!(new.try_log_in("u3003", "tok"), 0, "nothing before the login");
}

#[test]
fn a_payload_that_no_frame_can_hold_is_dropped() {
    let server = Server::start(config());
    let mut task = server.task();
    let mut member = Im::guest(&server);
    member.join("room-7");
    publish(&mut task, &["cr:room-7"], &"x".repeat(1_048_576));
    task.send(cmd::BROADCAST, &proto::Broadcast { data: vec![b'y'; 1_048_576].into() });
    publish(&mut task, &["cr:room-7"], &"z".repeat(1_000_000));
    assert_eq!(only(&member.next()).2.len(), 1_000_000);
}

#[test]
fn members_of_other_protocols_get_the_content_itself() {
    let server = Server::start(config());
    let mut worker = server.worker(1);
    let mut task = server.task();
    let mut client = server.client();
    let uniq_id = worker.opened();
    task.subscribe(&uniq_id, &["cr:room-7"]);
    let mut user = Im::member(&server, "u1001", "room-7");
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    wait_until("the subscription is there", || room_size(&mut task) == 3);
    user.say("room-7", "from a member");
    assert_eq!(client.frame().text(), "from a member");
    publish(&mut task, &["cr:room-7"], "from a backend");
    assert_eq!(client.frame().text(), "from a backend");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(guest.next().notify().messages.into_iter().map(|m| m.message_content));
    }
    assert_eq!(seen, [&b"from a member"[..], b"from a backend"]);
    assert_eq!(only(&user.next()), notice("room-7", "from a backend"));
    task.single_cast(&uniq_id, "the mark");
    assert_eq!(client.frame().text(), "the mark", "each came once");
}

fn room_size(task: &mut Business) -> i32 {
    let topics = vec!["cr:room-7".to_owned()];
    let request = proto::TopicUniqIdCountReq { topics, count_all: false };
    let answer: proto::TopicUniqIdCountResp = task.ask(cmd::TOPIC_UNIQ_ID_COUNT, &request);
    answer.items.get("cr:room-7").copied().unwrap_or_default()
}

/// Rooms are topics: a backend may put clients into them and take them out.
#[test]
fn a_backend_may_change_who_is_in_a_room() {
    let mut config = config();
    config.im.max_room_members = 1;
    let server = Server::start(config);
    let mut task = server.task();
    let mut put = Im::user(&server, "u1001");
    let uniq_id = online(&mut task).remove(0);
    task.subscribe(&uniq_id, &["cr:room-7", "plain"]);
    wait_until("it is in the room", || room_size(&mut task) == 1);
    publish(&mut task, &["cr:room-7"], "to the room");
    assert_eq!(only(&put.next()), notice("room-7", "to the room"));
    publish(&mut task, &["plain"], "to a topic");
    assert_eq!(only(&put.next()), notice("", "to a topic"));
    let mut joiner = Im::guest(&server);
    assert_eq!(joiner.try_join("room-7"), 0x21);
    let topics = vec!["cr:room-7".to_owned()];
    let data = Default::default();
    task.send(cmd::TOPIC_DELETE, &proto::TopicDelete { topics, data });
    wait_until("the room is empty", || room_size(&mut task) == 0);
    assert_eq!(joiner.try_join("room-7"), 0);
    put.say("room-7", "not a member any more");
    put.expect_nothing();
    joiner.expect_nothing();
}

#[test]
fn force_offline_sends_clients_away() {
    let mut config = config();
    config.im.kick_notify = true;
    let server = Server::start(config);
    let mut task = server.task();
    let mut tcp = Im::user(&server, "u1001");
    let mut websocket = Im::websocket(&server);
    websocket.log_in("u1001");
    let mut other = Im::user(&server, "u2002");
    let kick = proto::ForceOfflineByCustomerId {
        customer_ids: vec!["u1001".to_owned()],
        data: b"goodbye".to_vec().into(),
    };
    task.send(cmd::FORCE_OFFLINE_BY_CUSTOMER_ID, &kick);
    for client in [&mut tcp, &mut websocket] {
        assert_eq!(only(&client.next()), notice("", "goodbye"));
        let frame = client.next();
        assert_eq!((frame.bare(), frame.header.flag), ((0, KICK, 0x14), 0x12));
    }
    tcp.expect_end();
    websocket.expect_close(4001);
    drop((tcp, websocket));
    wait_until("the others have gone", || online(&mut task).len() == 1);
    let uniq_ids = online(&mut task);
    task.send(cmd::FORCE_OFFLINE, &proto::ForceOffline { uniq_ids, ..Default::default() });
    assert_eq!(other.next().bare(), (0, KICK, 0x14));
    other.expect_end();
}

/// A way out of a room for a client with this uniqId; gives it back if it is still connected.
type Leave = fn(Client, &mut Business, &str) -> Option<Client>;

/// Whoever is in a room counts, whatever it speaks, and whoever has left it does not.
#[test]
fn members_of_every_protocol_count_while_they_are_there() {
    let mut config = config();
    config.im.max_room_members = 1;
    // Longer than this test may take: nobody answers close frames.
    config.runtime.close_timeout = Duration::from_secs(60);
    let server = Server::start(config);
    let (mut worker, mut task) = (server.worker(1), server.task());
    let mut guest = Im::guest(&server);
    let leave: [Leave; 4] = [
        |client, _, _| {
            drop(client);
            None
        },
        |mut client, _, _| {
            client.send_close(1000);
            assert_eq!(client.frame().close().0, 1000);
            Some(client)
        },
        |client, task, id| {
            let uniq_ids = vec![id.to_owned()];
            task.send(cmd::FORCE_OFFLINE, &proto::ForceOffline { uniq_ids, ..Default::default() });
            Some(client)
        },
        |client, task, id| {
            let (uniq_id, topics) = (id.to_owned(), vec!["cr:room-7".to_owned()]);
            let unsubscribe = proto::TopicUnsubscribe { uniq_id, topics, ..Default::default() };
            task.send(cmd::TOPIC_UNSUBSCRIBE, &unsubscribe);
            Some(client)
        },
    ];
    let mut rest = Vec::new();
    for leave in leave {
        let client = server.client();
        let id = worker.opened();
        task.subscribe(&id, &["cr:room-7"]);
        wait_until("it is in the room", || room_size(&mut task) == 1);
        assert_eq!(guest.try_join("room-7"), 0x21);
        rest.push(leave(client, &mut task, &id));
        wait_until("the room is empty", || room_size(&mut task) == 0);
        assert_eq!(guest.try_join("room-7"), 0);
        guest.leave("room-7");
    }
}

#[test]
fn who_is_sent_away_is_in_no_room_although_it_does_not_answer() {
    let mut config = config();
    config.runtime.close_timeout = Duration::from_secs(60);
    let server = Server::start(config);
    let mut task = server.task();
    let mut websocket = Im::websocket(&server);
    websocket.log_in("u1001");
    websocket.join("room-7");
    assert_eq!(room_size(&mut task), 1);
    let customer_ids = vec!["u1001".to_owned()];
    let kick = proto::ForceOfflineByCustomerId { customer_ids, ..Default::default() };
    task.send(cmd::FORCE_OFFLINE_BY_CUSTOMER_ID, &kick);
    assert_eq!((room_size(&mut task), online(&mut task)), (0, Vec::new()));
    websocket.expect_close(4001);
}

#[test]
fn what_members_say_is_forwarded_to_workers() {
    for forward in [Forward::Content, Forward::Message] {
        let mut config = config();
        config.im.forward = forward;
        config.im.announce_join = true;
        let server = Server::start(config);
        let mut worker = server.worker(7);
        let mut user = Im::member(&server, "u1001", "room-7");
        if forward == Forward::Message {
            let joined = CrMessage::decode(worker.transfer().data).expect("a CRMessage");
            assert_eq!((&*joined.to, joined.message_type), ("room-7", 1));
        }
        for n in 0..10 {
            user.say("room-7", &n.to_string());
        }
        for n in 0..10 {
            let transfer = worker.transfer();
            assert_eq!((&*transfer.customer_id, transfer.topics.len()), ("u1001", 1));
            let content = match forward {
                Forward::Content => transfer.data,
                _ => {
                    let message = CrMessage::decode(transfer.data).expect("a CRMessage");
                    assert_eq!((&*message.from, &*message.to), ("u1001", "room-7"));
                    assert!(message.timestamp > 1_700_000_000_000);
                    message.message_content
                }
            };
            assert_eq!(content, n.to_string().as_bytes());
        }
        // The worker answers the sender and the room.
        let mut task = server.task();
        let uniq_id = online(&mut task).remove(0);
        worker.single_cast(&uniq_id, "to you");
        loop {
            let seen = only(&user.next());
            if seen.1.is_empty() {
                assert_eq!(seen, notice("", "to you"));
                break;
            }
        }
    }
}

#[test]
fn what_members_say_is_pushed_to_a_queue() {
    let mut config = config();
    config.im.queue = "im-messages".to_owned();
    let server = Server::start(config);
    let listeners = ringway::config::all::Config::demo().listeners;
    let api = listeners.iter().position(|l| l.service == Service::ConnmixApi).expect("the demo's");
    let mut consumer = Client::open(server.address(api), "/ws/v1");
    consumer.send_text(r#"{"m":"queue.pop","p":{"t":["im-messages"]},"i":1}"#);
    let answer: serde_json::Value = serde_json::from_str(consumer.frame().text()).expect("JSON");
    assert_eq!(answer["r"]["s"], true, "{answer}");
    let mut user = Im::member(&server, "u1001", "room-7");
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let mut gift = message("room-7", "rose x10");
    gift.message_type = 2;
    user.send(CMS, &gift.encode_to_vec());
    guest.say("room-7", "guests are not heard");
    user.say("room-7", "hello");
    for (kind, content) in [(2, "cm9zZSB4MTA="), (0, "aGVsbG8=")] {
        let event: serde_json::Value = serde_json::from_str(consumer.frame().text()).expect("JSON");
        let expected = serde_json::json!({
            "event": "cms", "room": "room-7", "uid": "u1001", "messageType": kind,
            "frame": { "type": "binary", "data": content, "finish": true },
        });
        assert_eq!((&event["e"], &event["p"]["d"]), (&"queue.pop".into(), &expected), "{event}");
    }
    assert_eq!(guest.messages("room-7", 2).len(), 2, "the room hears it as well");
}

#[test]
fn a_member_whose_queue_is_full_goes_on_when_there_is_room() {
    const MESSAGES: usize = 300;
    let mut config = config();
    config.im.queue = "im-messages".to_owned();
    config.im.cms_rate = 0;
    config.connmix.queue.full = QueueFull::Block;
    config.connmix.queue.topic_messages_max = 1;
    let server = Server::start(config);
    let listeners = ringway::config::all::Config::demo().listeners;
    let api = listeners.iter().position(|l| l.service == Service::ConnmixApi).expect("the demo's");
    let mut user = Im::member(&server, "u1001", "room-7");
    (0..MESSAGES).for_each(|number| user.say("room-7", &number.to_string()));
    let mut consumer = Client::open(server.address(api), "/ws/v1");
    consumer.send_text(r#"{"m":"queue.pop","p":{"t":["im-messages"]},"i":1}"#);
    assert!(consumer.frame().text().contains("true"));
    for number in 0..MESSAGES {
        let event: serde_json::Value = serde_json::from_str(consumer.frame().text()).expect("JSON");
        let data = event["p"]["d"]["frame"]["data"].as_str().expect("base64");
        let text = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        assert_eq!(text, number.to_string().as_bytes());
    }
}
