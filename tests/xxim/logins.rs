//! Logins: refused ones, and who stays when a device logs in again (section 5.2).

use std::time::Instant;

use prost::Message;
use ringway::config::model::Verifier;
use ringway::protocols::xxim::wire::proto::CommonResp;

use crate::common::{Frame, PATIENCE, Server};
use crate::support::{Xxim, config, request, user_params};
use crate::upstream::Upstream;
use crate::vectors::vector;

const SET_PARAMS: &str = "/v1/conn/white/setCxnParams";
const SET_USER: &str = "/v1/conn/white/setUserParams";

#[test]
fn a_refused_login_is_answered_and_closed_and_an_accepted_one_repeated_is_nothing_new() {
    let mut config = config("http://127.0.0.1:9");
    config.login.verifier = Verifier::Static(vec![("ann".into(), "good".into())]);
    let server = Server::start(config);
    let mut client = Xxim::open(&server);
    client.set_params("d");
    let answer = client.ask("a", SET_USER, &user_params("ann", "bad"));
    assert_eq!(answer.code, 4);
    let refusal = CommonResp::decode(answer.data).expect("a CommonResp");
    assert_eq!((refusal.code, refusal.msg()), (4, "认证失败，请重新登录"));
    client.expect_close("C02");
    let mut client = Xxim::open(&server);
    client.set_params("d");
    for _ in 0..2 {
        assert_eq!(client.ask("a", SET_USER, &user_params("ann", "good")).code, 0);
    }
    client.keep_alive();
}

#[test]
fn a_refused_login_can_be_closed_without_a_word() {
    let mut config = config("http://127.0.0.1:9");
    config.login.verifier = Verifier::Static(Vec::new());
    config.xxim.respond_then_close = false;
    let server = Server::start(config);
    let mut client = Xxim::open(&server);
    client.set_params("d");
    client.request("a", SET_USER, &user_params("ann", "bad"));
    client.expect_close("C02");
}

#[test]
fn a_verifier_that_is_down_asks_to_try_again_or_closes() {
    for close in [false, true] {
        let mut config = config("http://127.0.0.1:9");
        config.login.verifier = Verifier::Http("http://127.0.0.1:9".into());
        config.xxim.close_when_unavailable = close;
        let server = Server::start(config);
        let mut client = Xxim::open(&server);
        client.set_params("d");
        let answer = client.ask("a", SET_USER, &user_params("ann", "t"));
        if close {
            assert_eq!(answer.code, 4);
            client.expect_close("C02");
        } else {
            assert_eq!(answer.code, 8);
            client.set_params("d");
            assert_eq!(client.ask("b", "/v1/conn/keepAlive", b"").code, 4);
        }
    }
}

#[test]
fn the_same_device_displaces_itself_and_others_stay() {
    let server = Server::start(config("http://127.0.0.1:9"));
    let mut first = Xxim::login(&server, "ann", "one");
    let mut other_device = Xxim::login(&server, "ann", "two");
    let mut other_user = Xxim::login(&server, "bob", "one");
    // Again on the same connection: nobody is displaced.
    first.set_params("one");
    first.set_user("ann");
    first.keep_alive();
    for _ in 0..10 {
        let next = Xxim::login(&server, "ann", "one");
        first.expect_close("C08");
        first = next;
    }
    first.keep_alive();
    other_device.keep_alive();
    other_user.keep_alive();
}

#[test]
fn a_connection_that_becomes_somebody_else_leaves_its_place() {
    let server = Server::start(config("http://127.0.0.1:9"));
    let mut changing = Xxim::login(&server, "ann", "one");
    changing.set_user("bob");
    let mut ann = Xxim::login(&server, "ann", "one");
    changing.keep_alive();
    ann.keep_alive();
    let mut bob = Xxim::login(&server, "bob", "one");
    changing.expect_close("C08");
    // New parameters are a new place too.
    bob.set_params("two");
    let mut again = Xxim::login(&server, "bob", "one");
    bob.keep_alive();
    let last = Xxim::login(&server, "bob", "two");
    bob.expect_close("C08");
    again.keep_alive();
    drop(last);
}

/// Closed by displacement, or still there.
fn is_displaced(client: &mut Xxim) -> bool {
    client.request("k", "/v1/conn/keepAlive", b"");
    let frame = client.client.frame();
    if frame.first == 0x88 {
        assert_eq!(frame.payload, vector("C08"));
        return true;
    }
    assert_eq!(frame.first, 0x82);
    false
}

#[test]
fn of_1000_simultaneous_logins_of_one_device_one_stays() {
    const CLIENTS: usize = 1000;
    let server = Server::start(config("http://127.0.0.1:9"));
    let mut clients: Vec<Xxim> = (0..CLIENTS).map(|_| Xxim::open(&server)).collect();
    let newest = clients.last().expect("a thousand").client.socket.local_addr().expect("connected");
    // V06 without its user: every client the same device.
    let set_params = vector("V06");
    let set_user = request("u", SET_USER, &user_params("ann", "t"));
    for client in &mut clients {
        client.send_raw(&set_params);
        client.send_raw(&set_user);
    }
    for client in &mut clients {
        assert_eq!(client.client.frame(), Frame { first: 0x82, payload: vector("V07").to_vec() });
        assert_eq!(client.response().code, 0, "every login is answered before it is displaced");
    }
    let started = Instant::now();
    let mut left = clients;
    // Every displacement is decided by now; its close frame may still be on its way.
    while left.len() > 1 {
        assert!(started.elapsed() < PATIENCE, "{} connections hold one place", left.len());
        left.retain_mut(|client| !is_displaced(client));
    }
    assert_eq!(left.len(), 1, "nobody is left");
    assert_eq!(
        left[0].client.socket.local_addr().expect("connected"),
        newest,
        "it is not the newest"
    );
    left[0].keep_alive();
}

/// A verifier for BeforeConnect whose answers wait for the test.
fn slow_verifier() -> (Upstream, Server) {
    let verifier = Upstream::start();
    let mut config = config("http://127.0.0.1:9");
    config.login.verifier = Verifier::Http(verifier.url.clone());
    config.login.timeout = PATIENCE;
    (verifier, Server::start(config))
}

/// An older connection whose verification ends last is itself displaced, whichever shards the two
/// are on and whoever of them logs in again.
#[test]
fn a_login_that_is_verified_late_displaces_no_newer_connection() {
    let (verifier, server) = slow_verifier();
    for turn in 0..20 {
        let user = format!("ann{turn}");
        let mut older = Xxim::open(&server);
        older.set_params("d");
        older.request("u", SET_USER, &user_params(&user, "slow"));
        let held_back = verifier.call();
        let mut newer = Xxim::open(&server);
        newer.set_params("d");
        newer.request("u", SET_USER, &user_params(&user, "fast"));
        verifier.call().answer(b"");
        assert_eq!(newer.response().code, 0);
        held_back.answer(b"");
        assert_eq!(older.response().code, 0, "its token was good");
        older.expect_close("C08");
        newer.keep_alive();
    }
}

/// Accepted in one order, logged in in the opposite one: the newest stays from its login on. When
/// it has left an older one can have the place.
#[test]
fn the_connection_that_was_accepted_last_stays_whatever_the_order_of_logins() {
    let server = Server::start(config("http://127.0.0.1:9"));
    let mut clients: Vec<Xxim> = (0..10).map(|_| Xxim::open(&server)).collect();
    let mut spare = clients.remove(0);
    let mut newest = clients.pop().expect("there are ten");
    newest.set_params("d");
    newest.set_user("ann");
    for mut older in clients.into_iter().rev() {
        older.set_params("d");
        older.set_user("ann");
        older.expect_close("C08");
    }
    newest.keep_alive();
    newest.client.send_close(1000);
    assert_eq!(newest.client.frame().close().0, 1000);
    spare.set_params("d");
    spare.set_user("ann");
    spare.keep_alive();
}

#[test]
fn a_login_in_the_query_has_no_greeting() {
    let mut config = config("http://127.0.0.1:9");
    config.login.verifier = Verifier::Static(vec![("ann".into(), "t k".into())]);
    config.xxim.query_auth = true;
    let server = Server::start(config);
    let address = crate::support::address(&server);
    let open = |query: &str| {
        let client = crate::common::Client::open(address, &format!("/ws?{query}"));
        Xxim { client, cipher: None }
    };
    let mut client = open("userId=ann&token=t%20k&platform=web&deviceId=d");
    client.keep_alive();
    let mut client = open("userId=ann&token=bad&platform=web&deviceId=d");
    client.expect_close("C02");
    let mut client = open("userId=ann");
    assert_eq!(client.client.frame().payload, b"connected");
    assert_eq!(client.ask("a", SET_PARAMS, b"\x0a\x01p\x12\x03web").code, 0);
}
