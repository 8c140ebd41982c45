//! The end as clients, load balancers and supervisors see it.

use std::collections::HashSet;
use std::io::Write;
use std::time::{Duration, Instant};

use ringway::wire::websocket::mask_frame;
use rustix::process::Signal;

use crate::binary::{Binary, LISTENERS};
use crate::common::*;

/// `runtime.drain` of a gateway.
fn start(drain: &str, more: &str) -> Binary {
    let without = LISTENERS.split("[runtime.drain]").next().unwrap_or_default();
    Binary::start_as(&format!("{without}{more}\n[runtime.drain]\n{drain}\n"))
}

fn readyz(server: &Binary) -> String {
    let mut admin = Client::tcp(server.admin());
    admin.write(b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n");
    String::from_utf8(admin.rest()).expect("UTF-8")
}

fn echo(server: &Binary) -> Client {
    Client::open(server.address(CLIENTS), "/echo")
}

/// Shows that a client is served.
fn say(client: &mut Client, text: &str) {
    client.send_text(text);
    assert_eq!(client.frame().text(), text);
}

/// Load balancers are to see it before anybody feels it.
#[test]
fn it_is_not_ready_first_and_goes_on_accepting_until_somebody_is_in_a_hurry() {
    let mut server = start("delay = \"1h\"\nspread = \"1h\"\ncode = 4001", "");
    let mut before: Vec<Client> = (0..20).map(|_| echo(&server)).collect();
    server.signal(Signal::TERM);
    wait_until("not ready", || readyz(&server).starts_with("HTTP/1.1 503 "));
    assert!(readyz(&server).ends_with("\r\n\r\ndraining\n"));
    let mut after = echo(&server);
    say(&mut after, "welcome?");
    before.iter_mut().for_each(|client| say(client, "still here?"));
    server.signal(Signal::INT);
    server.await_log("the drain hurries");
    for mut client in before.into_iter().chain([after]) {
        assert_eq!(client.frame().close(), (4001, "server shutdown"));
        client.send_close(4001);
        client.expect_end();
    }
    assert_eq!(server.exit_code(), Some(0));
}

/// The port is closed, and most clients are still served.
#[test]
fn clients_go_one_after_the_other_until_somebody_is_in_a_hurry() {
    let mut server = start("delay = \"0s\"\nspread = \"1h\"", "");
    let mut clients: Vec<Client> = (0..20).map(|_| echo(&server)).collect();
    server.signal(Signal::TERM);
    // The first of each shard may go at once, or be put off by up to three minutes.
    wait_until("clients that wait for their turn", || {
        server.metric("ringway_drain_clients_waiting", "") >= 18
    });
    let address = server.address(CLIENTS);
    wait_until("nobody is accepted", || std::net::TcpStream::connect(address).is_err());
    let told = clients.iter().filter(|client| client.has_input()).count();
    assert!(told <= 2, "{told} of 20 were told at once");
    clients.retain(|client| !client.has_input());
    clients.iter_mut().for_each(|client| say(client, "still here?"));
    server.await_log("clients leave");
    server.signal(Signal::TERM);
    server.await_log("the drain hurries");
    for mut client in clients {
        assert_eq!(client.frame().close(), (1001, "server shutdown"));
    }
    assert_eq!(server.exit_code(), Some(0));
}

/// 100 in two seconds are 50 in each of them, on all shards together and one more on each.
#[test]
fn no_second_has_more_closes_than_its_share() {
    const COUNT: usize = 100;
    let mut server = start("delay = \"0s\"\nspread = \"2s\"", "");
    let clients: Vec<Client> = (0..COUNT).map(|_| echo(&server)).collect();
    let begun = Instant::now();
    server.signal(Signal::TERM);
    let told = |mut client: Client| {
        std::thread::spawn(move || {
            assert_eq!(client.frame().close(), (1001, "server shutdown"));
            client.send_close(1001);
            client.expect_end();
        })
    };
    let threads: Vec<_> = clients.into_iter().map(told).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it is told"));
    // The second half does not come in the same second as the first.
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_third_signal_ends_the_process_at_once() {
    let mut server = start(
        "delay = \"0s\"\nspread = \"1h\"",
        "[runtime]\nshutdown_timeout = \"1h\"\nclose_timeout = \"1m\"",
    );
    // It does not answer the close frame.
    let client = echo(&server);
    server.signal(Signal::TERM);
    server.await_log("draining");
    server.signal(Signal::TERM);
    server.await_log("the drain hurries");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(1));
    server.await_log("ended before everything was drained");
    drop(client);
}

/// Half of them answer nothing and read nothing; half speak all the time.
#[test]
fn those_who_never_answer_do_not_hold_up_a_drain() {
    let mut server = start(
        "delay = \"100ms\"\nspread = \"1s\"",
        "[runtime]\nclose_timeout = \"200ms\"\nshutdown_timeout = \"20s\"",
    );
    let mut worker = server.worker(7);
    let mut open = HashSet::new();
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(server.client());
        open.insert(worker.opened());
    }
    let speaking = clients.split_off(20);
    let threads: Vec<_> = speaking
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                let message = mask_frame(0x81, [1, 2, 3, 4], b"and on");
                while client.socket.write_all(&message).is_ok() {
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    server.signal(Signal::TERM);
    while let Some((number, body)) = worker.try_frame() {
        if number == cmd::CONN_CLOSE {
            let closed: ringway::wire::worker::proto::ConnClose =
                prost::Message::decode(&*body).expect("it decodes");
            assert!(open.remove(&closed.uniq_id), "closed once");
        }
    }
    assert!(open.is_empty(), "{} clients were not reported", open.len());
    assert_eq!(server.exit_code(), Some(0));
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    drop(clients);
}

#[test]
fn signals_that_mean_nothing_do_nothing() {
    let mut server = Binary::start("");
    for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        server.signal(signal);
        wait_until(name, || server.log().iter().any(|line| line["signal"] == name));
    }
    server.check_serves();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
}
