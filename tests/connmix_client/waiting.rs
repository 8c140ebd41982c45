//! Waiting, keep-alive, and what happens when nobody comes.

use ringway::wire::worker::proto;
use serde_json::json;

use crate::common::{Client, cmd, wait_until};
use crate::support::{Gateway, text};

const WAIT: &str = r#"
[[connmix.server.rule]]
on = "open"
do = [ { push = { topic = "q", event = "open" } } ]
[[connmix.server.rule]]
on = "message"
when = { data = "login" }
do = [ { wait = { key = "uid", timeout = 60 } }, { send = "hello ${ctx.uid}" } ]
[[connmix.server.rule]]
on = "message"
do = [ { send = "echo ${data}" } ]
[[connmix.server.rule]]
on = "close"
do = [ { push = { topic = "q", event = "close", include = ["uid=ctx.uid"] } } ]
"#;

#[test]
fn who_waits_is_not_handled_but_is_reached() {
    let gateway = Gateway::start(WAIT);
    let mut worker = gateway.worker(&["q"]);
    let (mut web, mut tcp) = (gateway.client(), gateway.tcp());
    let mut first = worker.event().0;
    let mut second = worker.event().0;
    web.send_text("before");
    assert_eq!(text(&mut web), "echo before");
    tcp.write(b"before\n");
    assert_eq!(tcp.line(), "echo before");
    web.send_text("login");
    web.send_text("after");
    tcp.write(b"login\nafter\nlast");
    worker.send(&first, "meanwhile");
    worker.send(&second, "meanwhile");
    assert_eq!((text(&mut web), tcp.line()), ("meanwhile".to_owned(), "meanwhile".to_owned()));
    worker.call(&first, "set_context_value", json!(["other", 1]));
    // Long after the message was sent it is still not handled.
    for _ in 0..2 {
        worker.call(&first, "set_context", json!([{ "uid": "\u{4f60}", "x": 1 }]));
        std::mem::swap(&mut first, &mut second);
    }
    assert_eq!((text(&mut web), text(&mut web)), ("hello \u{4f60}".into(), "echo after".into()));
    assert_eq!((tcp.line(), tcp.line()), ("hello \u{4f60}".to_owned(), "echo after".to_owned()));
    tcp.write(b"\n");
    assert_eq!(tcp.line(), "echo last");
    // The value is there: nothing waits any more.
    web.send_text("login");
    assert_eq!(text(&mut web), "hello \u{4f60}");
}

#[test]
fn an_end_is_noticed_while_the_client_waits() {
    let gateway = Gateway::start(WAIT);
    let mut worker = gateway.worker(&["q"]);
    for tcp in [false, true] {
        let id = if tcp {
            let mut client = gateway.tcp();
            client.write(b"login\nlost\n");
            worker.event().0
        } else {
            let mut client = gateway.client();
            client.send_text("login");
            client.send_text("lost");
            worker.event().0
        };
        assert_eq!(worker.event(), (id, json!({ "event": "close" })));
    }
}

/// The rules about the end of a client are run when its close frame is queued.
#[test]
fn who_is_sent_away_has_left_although_it_does_not_answer() {
    // Longer than this test may take.
    let gateway = Gateway::start(&format!("{WAIT}[runtime]\nclose_timeout = \"60s\"\n"));
    let mut worker = gateway.worker(&["q"]);
    let mut task = gateway.netsvr_worker();
    for (tcp, waits) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut web, mut stream) = (None, None);
        match tcp {
            true => stream.insert(gateway.tcp()).write(if waits { b"login\n" } else { b"" }),
            false if waits => web.insert(gateway.client()).send_text("login"),
            false => _ = web.insert(gateway.client()),
        }
        let id = worker.event().0;
        worker.call(&id, "subscribe", json!(["room"]));
        let answer: proto::UniqIdListResp = task.ask(cmd::UNIQ_ID_LIST, &());
        let uniq_ids = answer.uniq_ids;
        task.send(cmd::FORCE_OFFLINE, &proto::ForceOffline { uniq_ids, ..Default::default() });
        assert_eq!(task.online_count(), 0);
        let topics: proto::TopicCountResp = task.ask(cmd::TOPIC_COUNT, &());
        assert_eq!(topics.count, 0);
        assert_eq!(worker.event(), (id.clone(), json!({ "event": "close" })));
        let sent = worker.ask("mesh.send", json!({ "c": id, "d": "lost" }));
        assert_eq!(sent["E"]["c"], 401, "client not found: {sent}");
        if let Some(mut web) = web {
            assert_eq!(web.frame().close(), (1008, "forceOffline"));
        }
    }
}

#[test]
fn input_of_a_client_that_waits_is_bounded_and_complete() {
    let runtime = "[runtime]\noutbox_bytes_max = 67108864\n";
    let gateway = Gateway::start(&format!("{WAIT}{runtime}"));
    let mut worker = gateway.worker(&["q"]);
    let mut client = gateway.client();
    let (id, _) = worker.event();
    client.send_text("login");
    let long = "x".repeat(30_000);
    let mut writer = client.socket.try_clone().expect("a socket");
    let wire = ringway::wire::websocket::mask_frame(0x81, [1, 2, 3, 4], long.as_bytes());
    let thread = std::thread::spawn(move || {
        (0..300).for_each(|_| std::io::Write::write_all(&mut writer, &wire).expect("it is read"));
    });
    worker.call(&id, "set_context_value", json!(["uid", 1]));
    assert_eq!(text(&mut client), "hello 1");
    for _ in 0..300 {
        assert_eq!(text(&mut client).len(), "echo ".len() + long.len());
    }
    thread.join().expect("everything is written");
}

#[test]
fn a_wait_ends_in_time() {
    let gateway = Gateway::start(&WAIT.replace("timeout = 60", "timeout = 0.1"));
    let mut client = gateway.client();
    client.send_text("login");
    client.send_text("after");
    assert_eq!(text(&mut client), "echo after", "hello has no uid and is skipped");
}

#[test]
fn a_silent_client_is_closed_and_one_that_says_something_is_not() {
    let gateway = Gateway::start("read_timeout = \"1s\"\n");
    let (mut silent, mut alive, mut tcp) = (gateway.client(), gateway.client(), gateway.tcp());
    let mut writer = alive.socket.try_clone().expect("a socket");
    // Pongs are something.
    let pong = ringway::wire::websocket::mask_frame(0x8a, [1, 2, 3, 4], b"");
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = done.clone();
    let thread = std::thread::spawn(move || {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            std::io::Write::write_all(&mut writer, &pong).expect("it is open");
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    });
    assert_eq!(silent.frame().close(), (1000, "read timeout"));
    tcp.expect_end();
    alive.write(&ringway::wire::websocket::mask_frame(0x89, [1, 2, 3, 4], b"still"));
    assert_eq!(alive.frame().first, 0x8a, "it is still open");
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    thread.join().expect("it could write");
}

/// Writes bytes of a frame that never ends, until the peer has closed.
fn drip(mut socket: std::net::TcpStream, head: &'static [u8]) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut bytes = head.iter().chain(std::iter::repeat(&b'x'));
        while std::io::Write::write_all(&mut socket, &[*bytes.next().expect("endless")]).is_ok() {
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    })
}

#[test]
fn a_frame_in_drips_does_not_keep_a_client() {
    let gateway = Gateway::start("read_timeout = \"1s\"\n");
    let (mut client, mut tcp) = (gateway.client(), gateway.tcp());
    let drips = [
        drip(client.socket.try_clone().expect("a socket"), b"\x82\xfe\x03\xe8"),
        drip(tcp.socket.try_clone().expect("a socket"), b""),
    ];
    assert_eq!(client.frame().close(), (1000, "read timeout"));
    tcp.expect_end();
    drop((client, tcp, gateway));
    drips.into_iter().for_each(|drip| drip.join().expect("no panic"));
}

#[test]
fn a_server_that_pings_keeps_those_who_answer() {
    let gateway = Gateway::start("read_timeout = \"1s\"\nping = true\n");
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.frame().first, 0x89);
        client.write(&ringway::wire::websocket::mask_frame(0x8a, [1, 2, 3, 4], b""));
    }
    assert_eq!(client.frame().first, 0x89);
    assert_eq!(client.frame().close(), (1000, "read timeout"), "this one was not answered");
}

#[test]
fn a_full_queue_closes_or_is_ignored_as_configured() {
    let rules = |policy: &str| {
        format!(
            "on_push_error = \"{policy}\"\n\
             [[connmix.server.rule]]\non = \"message\"\n\
             do = [ {{ push = {{ topic = \"q\", include = [\"frame\"] }} }},\n\
             {{ send = \"${{data}}\" }} ]\n\
             [connmix.queue]\ntopic_messages_max = 10\n"
        )
    };
    let gateway = Gateway::start(&rules("close"));
    let mut client = gateway.client();
    (0..100).for_each(|number| client.send_text(&number.to_string()));
    let mut answers = 0;
    loop {
        let frame = client.frame();
        if frame.first == 0x88 {
            assert_eq!(frame.close(), (1013, "queue is full"));
            break;
        }
        answers += 1;
    }
    // Wherever the queue's home is.
    assert_eq!(answers, 10);

    let gateway = Gateway::start(&rules("ignore"));
    let mut client = gateway.client();
    (0..100).for_each(|number| client.send_text(&number.to_string()));
    (0..100).for_each(|number| assert_eq!(text(&mut client), number.to_string()));
    let mut worker = gateway.worker(&["q"]);
    (0..10).for_each(|number| assert_eq!(worker.event().1["frame"]["data"], number.to_string()));
}

#[test]
fn with_full_block_nothing_is_lost_and_the_pusher_waits() {
    let rules = format!(
        "{}\n[connmix.queue]\ntopic_messages_max = 10\nfull = \"block\"\n",
        crate::support::PUSH_ALL
    );
    let gateway = Gateway::start(&rules);
    let mut clients: Vec<Client> = (0..4).map(|_| gateway.client()).collect();
    for client in &mut clients {
        (0..500).for_each(|number| client.send_text(&number.to_string()));
    }
    let mut worker = gateway.worker(&["q"]);
    let mut next = std::collections::HashMap::new();
    for _ in 0..4 * 501 {
        let (client, d) = worker.event();
        let number = next.entry(client).or_insert(0);
        if d.get("frame").is_some() {
            assert_eq!(d["frame"]["data"], number.to_string());
            *number += 1;
        }
    }
    assert!(next.values().all(|count| *count == 500));
    drop(clients);
    (0..4).for_each(|_| assert_eq!(worker.event().1, json!({ "event": "close" })));
}

#[test]
fn a_client_that_takes_nothing_is_dropped() {
    let rules = r#"
write_timeout = "300ms"
[[connmix.server.rule]]
on = "message"
do = [ { send = "${data}" } ]
[[connmix.server.rule]]
on = "close"
do = [ { push = { topic = "q", event = "close" } } ]
[runtime]
outbox_bytes_max = 67108864
"#;
    let gateway = Gateway::start(rules);
    let mut worker = gateway.worker(&["q"]);
    let mut client = gateway.client();
    let wire = ringway::wire::websocket::mask_frame(0x81, [1, 2, 3, 4], &[b'x'; 60_000]);
    // Until both socket buffers are full and the gateway gives up.
    client.socket.set_nonblocking(true).expect("a socket");
    let mut netsvr = gateway.netsvr_worker();
    wait_until("the client is dropped", || {
        let _ = std::io::Write::write(&mut client.socket, &wire);
        netsvr.online_count() == 0
    });
    assert_eq!(worker.event().1, json!({ "event": "close" }));
}

#[test]
fn shutting_down_says_goodbye_to_who_waits_and_tells_the_worker() {
    let gateway = Gateway::start(WAIT);
    let mut worker = gateway.worker(&["q"]);
    let mut client = gateway.client();
    worker.event();
    client.send_text("login");
    client.send_text("after");
    client.write(&ringway::wire::websocket::mask_frame(0x89, [1, 2, 3, 4], b""));
    let Gateway { server } = gateway;
    let stopping = std::thread::spawn(move || server.stop());
    let goodbye = loop {
        let frame = client.frame();
        if frame.first == 0x88 {
            break frame;
        }
    };
    assert_eq!(goodbye.close(), (1001, "server shutdown"));
    client.send_close(1001);
    assert_eq!(worker.event().1, json!({ "event": "close" }));
    assert!(stopping.join().expect("no panic"), "everything was delivered in time");
}
