//! The switches of the encryption (sections 3.5, 3.7 and 9.2), and pushes under keys.

use prost::Message;
use ringway::protocols::xxim::wire::cipher::Cipher;
use ringway::protocols::xxim::wire::proto::{AfterConnectBody, PushBody, SetCxnParamsReq};

use crate::common::{Frame, Server};
use crate::support::{KEY_SEED, Xxim, address, config};
use crate::vectors::vector;

const SET_PARAMS: &str = "/v1/conn/white/setCxnParams";

fn params(key: &[u8], iv: &[u8]) -> Vec<u8> {
    SetCxnParamsReq {
        package_id: "p".into(),
        platform: "web".into(),
        aes_key: key.to_vec().into(),
        aes_iv: iv.to_vec().into(),
        ..SetCxnParamsReq::default()
    }
    .encode_to_vec()
}

#[test]
fn one_seed_alone_changes_nothing_but_must_be_a_ciphertext() {
    let server = Server::start(config("http://127.0.0.1:9"));
    let (key, iv) = (vector("K01"), vector("K02"));
    for (key, iv) in [(&key[..], &[][..]), (&[], &iv)] {
        let mut client = Xxim::open(&server);
        assert_eq!(client.ask("a", SET_PARAMS, &params(key, iv)).code, 0);
        client.set_user("u");
        client.keep_alive();
    }
    let mut client = Xxim::open(&server);
    client.request("a", SET_PARAMS, &params(&key, &iv[1..]));
    client.expect_close("C03");
}

#[test]
fn keys_can_be_set_only_so_often() {
    let server = Server::start(config("http://127.0.0.1:9"));
    let mut client = Xxim::encrypted(&server);
    let body = params(&vector("K01"), &vector("K02"));
    for code in [0, 0, 8] {
        assert_eq!(client.ask("a", SET_PARAMS, &body).code, code);
    }
    client.set_user("u");
}

#[test]
fn encryption_can_be_required() {
    let mut config = config("http://127.0.0.1:9");
    config.xxim.crypto.require_encryption = true;
    let server = Server::start(config);
    let mut client = Xxim::encrypted(&server);
    client.set_user("u");
    client.keep_alive();
    // Switching it off is refused, in the last response under the keys.
    assert_eq!(client.ask("a", SET_PARAMS, &params(b"", b"")).code, 3);
    client.expect_close("C06");
    let mut client = Xxim::open(&server);
    assert_eq!(client.ask("a", "/v1/user/white/login", b"").code, 3);
    client.expect_close("C06");
}

#[test]
fn the_server_can_choose_the_iv() {
    let mut config = config("http://127.0.0.1:9");
    config.xxim.crypto.server_iv = true;
    let server = Server::start(config);
    let mut seeds = Vec::new();
    for _ in 0..2 {
        let mut client = Xxim::open(&server);
        let greeting = client.push();
        assert_eq!(greeting.event, 3);
        let seed = AfterConnectBody::decode(greeting.data).expect("a seed").aes_iv;
        assert!(seed.len() == 32 && seed.bytes().all(|byte| byte.is_ascii_hexdigit()), "{seed}");
        client.send(&vector("E01"));
        client.cipher = Some(Cipher::new(KEY_SEED, seed.as_bytes()));
        assert_eq!(client.receive(), vector("E02p"));
        client.set_user("u");
        seeds.push(seed);
    }
    assert_ne!(seeds[0], seeds[1]);
}

#[test]
fn parameters_can_be_echoed() {
    let mut config = config("http://127.0.0.1:9");
    config.xxim.echo_params = true;
    let server = Server::start(config);
    let mut client = Xxim::open(&server);
    for (request, expected) in [("V06", "V07g"), ("V10", "V11g")] {
        client.send(&vector(request));
        assert_eq!(client.receive(), vector(expected));
    }
}

#[test]
fn the_greeting_comes_before_the_response_to_what_was_sent_at_once() {
    let server = Server::start(config("http://127.0.0.1:9"));
    let mut client = crate::common::Client::tcp(address(&server));
    let mut bytes = crate::common::upgrade_request("/ws", "").into_bytes();
    bytes.extend(ringway::wire::websocket::mask_frame(0x82, [1; 4], &vector("V06")));
    client.write(&bytes);
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.frame(), Frame { first: 0x81, payload: b"connected".to_vec() });
    let response = client.frame().payload;
    assert_eq!(response, vector("V07"));
    assert_eq!(PushBody::decode(&*response).expect("a push").event, 2);
}

#[test]
fn clients_of_one_address_that_flood_with_keys_hold_up_nobody_else() {
    let mut config = config("http://127.0.0.1:9");
    config.runtime.cpus.truncate(1);
    // Ten at once, then one a second.
    config.xxim.crypto.ip_rate = 1;
    let server = Server::start(config);
    let mut flood: Vec<_> = (0..40).map(|_| Xxim::open_from(&server, "198.51.100.1")).collect();
    flood.iter_mut().for_each(|client| client.send_raw(&vector("N09")));
    for client in &mut flood[..10] {
        assert_eq!(client.receive().len() % 16, 0);
    }
    // Others get their keys meanwhile, and a proxy is believed about who they are.
    for number in 1..=20 {
        let mut other = Xxim::open_from(&server, &format!("192.0.2.{number}"));
        other.send(&vector("E01"));
        other.cipher = Some(Cipher::new(KEY_SEED, crate::support::IV_SEED));
        assert_eq!(other.receive(), vector("E02p"));
    }
    let last = flood.last_mut().expect("there are 40");
    assert!(!last.client.has_input(), "the flood is over its rate");
    // Who leaves gives its turn to the next.
    let mut next = flood.swap_remove(38);
    drop(flood);
    assert_eq!(next.receive().len() % 16, 0);
}
