//! Requests of backends that every node of a mesh carries out (section 6.1).

use std::net::SocketAddr;

use prost::Message;
use ringway::config::model::Mesh;
use ringway::protocols::xxim::config::push::XximPushService;
use ringway::protocols::xxim::wire::proto::{GetUserConnResp, KickUserConnReq};

use crate::common::{Server, wait_until};
use crate::nats::{Cable, Nats};
use crate::pushes::{filter, post, send};
use crate::support::{Xxim, config};

fn node(nats: &Nats, number: u16) -> (Server, SocketAddr) {
    node_at(nats.url(), number)
}

fn node_at(url: String, number: u16) -> (Server, SocketAddr) {
    let mut config = config("http://127.0.0.1:9");
    config.node = number;
    config.mesh = Mesh {
        nats: vec![url],
        cluster: "xxim".to_owned(),
        queue_bytes_max: 1 << 20,
        ..Mesh::default()
    };
    config.xxim_upstreams.push = Some(XximPushService {
        bind: "127.0.0.1:0".parse().expect("an address"),
        secret: String::new(),
        allow_from: Vec::new(),
        tls: None,
        allow_broadcast: true,
        cluster: true,
        expose_secrets: false,
        request_bytes_max: 1 << 20,
        bounds: Default::default(),
    });
    let server = Server::start(config);
    let address = server.gateway().push_address().expect("the push service listens");
    (server, address)
}

#[test]
fn a_request_to_one_node_is_carried_out_on_all_and_the_results_are_put_together() {
    let nats = Nats::start();
    let [(one, at_one), (two, at_two)] = [1, 2].map(|number| node(&nats, number));
    let mut ann = Xxim::login(&one, "ann", "d1");
    let mut bob = Xxim::login(&two, "bob", "d2");
    for at in [at_one, at_two] {
        wait_until("the nodes know each other", || {
            let found = post(at, "getUserConn", &filter(&["ann", "bob"], &[], &[]).encode_to_vec());
            let found = GetUserConnResp::decode(found).expect("an answer").conn_params;
            found.len() == 2
        });
        let sent = send(at, filter(&["ann", "bob", "eve"], &[], &[]), 0, b"to both");
        let mut reached: Vec<_> =
            sent.success_conn_params.iter().map(|conn| conn.user_id.as_str()).collect();
        reached.sort_unstable();
        assert_eq!(reached, ["ann", "bob"]);
        let failed: Vec<_> =
            sent.failed_conn_params.iter().map(|conn| conn.user_id.as_str()).collect();
        assert_eq!(failed, ["eve"]);
        for client in [&mut ann, &mut bob] {
            assert_eq!(&*client.push().data, b"to both");
        }
    }
    let everybody = KickUserConnReq { get_user_conn_req: Some(filter(&[], &[], &[])) };
    post(at_one, "kickUserConn", &everybody.encode_to_vec());
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.client.frame().close(), (1001, "kick"));
    }
}

/// Of simultaneous logins of one user on one device, at several nodes, exactly one stays.
#[test]
fn one_connection_of_a_login_stays_in_the_cluster() {
    let nats = Nats::start();
    let [(one, at_one), (two, _)] = [1, 2].map(|number| node(&nats, number));
    let mut first = Xxim::login(&one, "ann", "d1");
    let mut other = Xxim::login(&one, "ann", "another device");
    let count = |at| {
        let found = post(at, "getUserConn", &filter(&["ann"], &[], &["d1"]).encode_to_vec());
        GetUserConnResp::decode(found).expect("an answer").conn_params.len()
    };
    let mut second = Xxim::login(&two, "ann", "d1");
    assert_eq!(first.client.frame().close(), (1000, "duplicate connection"));
    wait_until("one is left", || count(at_one) == 1);
    // Back, while the connection that it displaces has logged in as somebody else meanwhile.
    second.set_user("bob");
    let mut third = Xxim::login(&one, "ann", "d1");
    let racers: Vec<_> =
        (0..10).map(|n| Xxim::login(if n % 2 == 0 { &one } else { &two }, "eve", "d1")).collect();
    wait_until("one of the racers is left", || {
        let found = post(at_one, "getUserConn", &filter(&["eve"], &[], &[]).encode_to_vec());
        GetUserConnResp::decode(found).expect("an answer").conn_params.len() == 1
    });
    drop(racers);
    for client in [&mut second, &mut third, &mut other] {
        client.keep_alive();
    }
    assert_eq!(count(at_one), 1);
}

/// What a node did not hear while it had no link it finds out afterwards.
#[test]
fn a_login_that_went_elsewhere_during_a_partition_is_given_up_when_it_is_over() {
    let nats = Nats::start();
    let cable = Cable::to(&nats);
    let (one, _) = node_at(cable.url(), 1);
    let [(two, at_two), (three, _)] = [2, 3].map(|number| node(&nats, number));
    let mut other = Xxim::login(&one, "ann", "another device");
    let mut before = Xxim::login(&two, "ann", "d1");
    wait_until("the nodes know each other", || {
        let found = post(at_two, "getUserConn", &filter(&["ann"], &[], &[]).encode_to_vec());
        GetUserConnResp::decode(found).expect("an answer").conn_params.len() == 2
    });
    let mut stale = Xxim::login(&one, "ann", "d1");
    assert_eq!(before.client.frame().close(), (1000, "duplicate connection"));
    cable.cut(true);
    // Two further logins: when the first of them is displaced, node 1 was told in vain.
    let mut second = Xxim::login(&two, "ann", "d1");
    wait_until("the login at node 2 is known to all that can be reached", || {
        let found = post(at_two, "getUserConn", &filter(&["ann"], &[], &["d1"]).encode_to_vec());
        GetUserConnResp::decode(found).expect("an answer").conn_params.len() == 1
    });
    let mut third = Xxim::login(&three, "ann", "d1");
    assert_eq!(second.client.frame().close(), (1000, "duplicate connection"));
    stale.keep_alive();
    cable.cut(false);
    assert_eq!(stale.client.frame().close(), (1000, "duplicate connection"));
    third.keep_alive();
    other.keep_alive();
}
