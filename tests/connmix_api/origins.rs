//! Pages in the browser of somebody who reaches the API (section 1.3).

use ringway::config::model::{OriginMode, Origins};
use ringway::protocols::connmix::config::User;

use crate::common::{Client, upgrade_request};
use crate::support::{Api, config};

/// Status and body of the answer to a request with these header lines.
fn answer(api: &Api, target: &str, headers: &str, body: &str) -> (u16, String) {
    let mut client = Client::tcp(api.address);
    let method = if body.is_empty() { "GET" } else { "POST" };
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n{headers}");
    client.write(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes());
    let answer = String::from_utf8(client.rest()).expect("a text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

/// The status of a handshake of a page, with the host that it asks for.
fn handshake(api: &Api, host: &str, origin: &str) -> u16 {
    let mut client = Client::tcp(api.address);
    let request = upgrade_request("/ws/v1", &format!("Origin: {origin}\r\n"));
    client.write(request.replace("Host: test", &format!("Host: {host}")).as_bytes());
    client.head()[9..12].parse().expect("a status")
}

/// Statuses that a page gets: pages that only look, and requests that act.
fn statuses(api: &Api, host: &str, origin: &str) -> Vec<u16> {
    let publish = r#"{"c":"stolen","d":"x"}"#;
    let lines = format!("Host: {host}\r\nOrigin: {origin}\r\n");
    let look = ["/version", "/v1/nodes", "/metrics", "/nothing"];
    let looks = look.iter().map(|target| answer(api, target, &lines, "").0);
    let acts = ["/v1/mesh/publish", "/v1/mesh/send"];
    let acts = acts.iter().map(|target| answer(api, target, &lines, publish).0);
    looks.chain(acts).chain([handshake(api, host, origin)]).collect()
}

const SERVED: [u16; 7] = [200, 200, 200, 404, 200, 200, 101];

#[test]
fn without_users_only_pages_of_this_machine_may_use_the_api() {
    let api = Api::start();
    let (mut member, id) = api.netsvr_client();
    let mut peer = api.peer();
    peer.done(&format!(
        r#"{{"m":"conn.call","p":{{"c":{id},"f":"subscribe","a":["stolen"]}},"i":1}}"#
    ));
    let port = api.address.port();
    for (host, origin) in [
        (format!("127.0.0.1:{port}"), "https://evil.example"),
        (format!("127.0.0.1:{port}"), "http://localhost:8088"),
        (format!("127.0.0.1:{port}"), "null"),
        (format!("127.0.0.1:{port}"), "http://127.0.0.1, http://127.0.0.1"),
        // A stranger's name that leads to this machine.
        (format!("evil.example:{port}"), "http://evil.example"),
        (format!("10.0.0.1:{port}"), "http://10.0.0.1"),
    ] {
        assert_eq!(statuses(&api, &host, origin), [403; 7], "{host} {origin}");
    }
    // Pawl names the host without the port.
    for (host, origin) in [
        (format!("127.0.0.1:{port}"), "http://127.0.0.1".to_owned()),
        (format!("localhost:{port}"), format!("http://localhost:{port}")),
        (format!("[::1]:{port}"), "http://[::1]:8088".to_owned()),
    ] {
        assert_eq!(statuses(&api, &host, &origin), SERVED, "{host} {origin}");
    }
    let (status, body) = answer(&api, "/version", "Host: x\r\nOrigin: http://a.example\r\n", "");
    assert_eq!(status, 403);
    assert!(body.starts_with(r#"{"E":{"c":101,"m":""#) && body.contains("allow_origin"), "{body}");
    // What programs send, which is no page.
    let publish = r#"{"c":"stolen","d":"end"}"#;
    assert_eq!(answer(&api, "/v1/mesh/publish", "Host: anything\r\n", publish).0, 200);
    for _ in 0..3 {
        assert_eq!(member.frame().text(), "x", "one publish of each local page and none before");
    }
    assert_eq!(member.frame().text(), "end");
}

#[test]
fn a_listed_page_may_use_the_api_without_users() {
    let (mut settings, number) = config();
    let origins = Origins::read(["https://console.example"], OriginMode::Origin);
    settings.connmix.api.allow_origin = origins.expect("a list");
    let api = Api::start_with(settings, number);
    assert_eq!(statuses(&api, "gateway.example", "https://console.example"), SERVED);
    assert_eq!(statuses(&api, "localhost", "http://localhost"), SERVED);
    assert_eq!(statuses(&api, "console.example", "http://console.example"), [403; 7]);
}

#[test]
fn with_users_only_the_list_decides() {
    let user = User { username: "a".into(), password: "b".into(), write: true, host: [None; 4] };
    // a:b
    const BASIC: &str = "Authorization: Basic YTpi\r\n";
    for (list, evil, local) in [(vec![], 200, 200), (vec!["https://console.example"], 403, 403)] {
        let (mut settings, number) = config();
        settings.connmix.api.users = vec![user.clone()];
        let origins = Origins::read(list, OriginMode::Origin);
        settings.connmix.api.allow_origin = origins.expect("a list");
        let api = Api::start_with(settings, number);
        let from = |origin: &str| {
            let lines = format!("Host: localhost\r\nOrigin: {origin}\r\n{BASIC}");
            answer(&api, "/version", &lines, "").0
        };
        assert_eq!(from("https://evil.example"), evil);
        assert_eq!(from("http://localhost"), local);
        assert_eq!(from("https://console.example"), 200);
        let none = format!("Host: localhost\r\n{BASIC}");
        assert_eq!(answer(&api, "/version", &none, "").0, 200, "no page");
        assert_eq!(answer(&api, "/version", "Host: localhost\r\n", "").0, 401);
    }
}
