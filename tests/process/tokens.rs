//! What an operator reads about tokens that are refused: why, not too often, and nothing of them.

use std::io::{Read, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use ringway::protocols::im::wire::{ByteOrder, HEADER_BYTES, Header, LenMode};

use crate::binary::Binary;
use crate::common::{connect, wait_until};

const SECRET: &str = "a secret of at least thirty-two bytes";
const SETTINGS: &str = r#"
[[listener]]
bind = "127.0.0.1:0"
protocol = "im"
[login]
verifier = "jwt"
[login.jwt]
secret = "a secret of at least thirty-two bytes"
issuer = "https://id.example"
audience = "chat"
"#;
/// Number of the listener, behind those that every process of these tests has.
const IM: usize = 3;
const REFUSED: &str = "a token was refused";

fn token(header: &str, claims: &str, secret: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256);
    format!("{signed}.{}", signature.expect("a signature"))
}

/// The status of a LOGIN as ann.
fn log_in(server: &Binary, token: &str) -> u8 {
    let mut body = Vec::new();
    prost::encoding::string::encode(1, &token.to_owned(), &mut body);
    prost::encoding::string::encode(2, &"ann".to_owned(), &mut body);
    let len = LenMode::Body.len(body.len());
    let header = Header { len, seq: 1, command: 1, flag: 0x10, status: 0 };
    let mut socket = connect(server.address(IM));
    let frame = [&header.bytes(ByteOrder::Big)[..], &body].concat();
    socket.write_all(&frame).expect("it reads");
    let mut answer = [0; HEADER_BYTES];
    socket.read_exact(&mut answer).expect("it answers");
    answer[HEADER_BYTES - 1]
}

fn reasons(server: &Binary) -> Vec<String> {
    let log = server.log();
    let refused = log.iter().filter(|line| line["message"] == REFUSED);
    refused.map(|line| line["reason"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn the_log_says_why_a_token_was_refused_and_nothing_of_it() {
    let server = Binary::start(SETTINGS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set").as_secs();
    let claims = |more: &str| {
        let usual = format!(r#""iss":"https://id.example","aud":"chat","exp":{}"#, now + 300);
        format!(r#"{{"sub":"ann",{usual}{more}}}"#)
    };
    let hs256 = r#"{"alg":"HS256"}"#;
    let good = claims("");
    assert_eq!(log_in(&server, &token(hs256, &good, SECRET)), 0);
    let forged = "a secret that is somebody else's, of 32";
    let refused = [
        ("no-token-at-all".to_owned(), "no signed token"),
        (token(hs256, &good, forged), "its signature"),
        (token(r#"{"alg":"HS512"}"#, &good, SECRET), "login.jwt.algorithm"),
        (token(r#"{"alg":"HS256","crit":["b64"],"b64":true}"#, &good, SECRET), "`crit`"),
        (token(hs256, &claims(&format!(r#","nbf":{}"#, now + 3000)), SECRET), "not valid yet"),
        (token(hs256, r#"{"sub":"ann"}"#, SECRET), "a claim is missing that it must have: "),
        (token(hs256, &claims(r#","nbf":"soon""#), SECRET), "not what it must be: nbf"),
        (token(hs256, &good.replace("id.example", "evil.example"), SECRET), "login.jwt.issuer"),
        (token(hs256, &good.replace("chat", "mail"), SECRET), "login.jwt.audience"),
        (token(hs256, &good.replace("ann", "bob"), SECRET), "the claim sub is not the user id"),
        (token(hs256, &good.replace(&(now + 300).to_string(), "1"), SECRET), "it has expired"),
    ];
    for (token, reason) in &refused {
        assert_eq!(log_in(&server, token), 0x11, "{reason}");
        wait_until(reason, || reasons(&server).iter().any(|said| said.contains(reason)));
    }
    let log = format!("{:?}", server.log());
    for (token, reason) in &refused {
        let parts = token.split('.').filter(|part| part.len() > 12);
        parts.for_each(|part| assert!(!log.contains(part), "{reason}: {part}"));
    }
    for word in ["evil.example", "mail", "bob", "soon", SECRET] {
        assert!(!log.contains(word), "{word}");
    }
}

/// A flood of one kind hides neither itself nor the others.
#[test]
fn each_reason_is_logged_once_a_second_at_the_most() {
    const LOGINS: u64 = 200;
    let server = Binary::start(SETTINGS);
    let began = Instant::now();
    (0..LOGINS).for_each(|_| assert_eq!(log_in(&server, "no-token"), 0x11));
    assert_eq!(log_in(&server, &token(r#"{"alg":"HS256"}"#, "{}", SECRET)), 0x11);
    let missing = "a claim is missing";
    wait_until(missing, || reasons(&server).iter().any(|said| said.contains(missing)));
    let lines_max = began.elapsed().as_secs() + 1;
    let log = server.log();
    let shape = log
        .iter()
        .filter(|line| line["message"] == REFUSED && line["reason"] == "it is no signed token");
    let told: Vec<u64> =
        shape.map(|line| 1 + line["suppressed"].as_u64().expect("a number")).collect();
    assert!((1..=lines_max).contains(&(told.len() as u64)), "{told:?} in {lines_max} s");
    assert!(told.iter().sum::<u64>() <= LOGINS, "{told:?}");
}
