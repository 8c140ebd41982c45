//! Verifiers of logins, from the shards' side of the sidecar: good, bad and expired tokens;
//! backends that accept, refuse, fail or are not there (xxim section 5.2, IM section 10).

mod sidecar;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use prost::Message;
use ringway::config::model::{Jwt, JwtAlgorithm, LoginSettings, Verifier};
use ringway::hub::login::{Login, Profile, Question, Verdict};
use ringway::lists::letters::{Mail, SidecarRequest};
use ringway::protocols::xxim::service::grpc::im_service_server::{ImService, ImServiceServer};
use ringway::protocols::xxim::wire::proto as pb;
use serde_json::{Value, json};
use sidecar::*;
use tonic::service::Routes;
use tonic::{Response, Status};

const FAILED: &str = "认证失败，请重新登录";
const EXPIRED: &str = "登录已过期";
const SECRET: &str = "a secret of at least thirty-two bytes";

fn sidecar(verifier: Verifier) -> Sidecar {
    let timeout = Duration::from_secs(20);
    let login = LoginSettings { verifier, timeout, json_timeout: timeout, ..Default::default() };
    Sidecar::start(ringway::sidecar::SidecarSettings { login, ..settings() })
}

fn login(question: Question, user: &str, token: &str) -> Login {
    Login {
        question,
        user: user.into(),
        token: token.into(),
        ip: "203.0.113.7".into(),
        platform: "windows".into(),
        device: "xxxx".into(),
        ..Login::default()
    }
}

fn ask(sidecar: &Sidecar, login: Login) -> Verdict {
    sidecar.request(SidecarRequest::Verify { conn: conn(), number: 3, login: Box::new(login) });
    match sidecar.mail(0) {
        Mail::Verified { conn: to, number: 3, verdict } if to == conn() => verdict,
        other => panic!("{other:?}"),
    }
}

fn xxim(sidecar: &Sidecar, user: &str, token: &str) -> Verdict {
    ask(sidecar, login(Question::BeforeConnect, user, token))
}

fn im(sidecar: &Sidecar, user: &str, token: &str) -> Verdict {
    ask(sidecar, login(Question::Json, user, token))
}

fn refused(message: &str) -> Verdict {
    Verdict::Refused { code: 4, message: message.into() }
}

const ACCEPTED: Verdict = Verdict::Accepted { profile: None };

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set").as_secs()
}

fn jwt(algorithm: JwtAlgorithm) -> Jwt {
    Jwt {
        algorithm,
        secret: SECRET.into(),
        key_file: PathBuf::new(),
        user_claim: "sub".into(),
        level_claim: "level".into(),
        nickname_claim: "name".into(),
        tags_claim: "tags".into(),
        platform_claim: String::new(),
        device_claim: String::new(),
        issuer: String::new(),
        audience: String::new(),
        leeway: Duration::from_secs(5),
    }
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).expect("a token")
}

fn hs256(claims: &Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

/// A token of these texts.
fn hs256_of(header: &str, claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256);
    format!("{signed}.{}", signature.expect("a signature"))
}

#[test]
fn a_token_signed_with_the_secret_is_good_until_it_expires() {
    let sidecar = sidecar(Verifier::Jwt(Box::new(jwt(JwtAlgorithm::Hs256))));
    let (soon, past) = (unix_now() + 60, unix_now() - 60);
    let good = hs256(&json!({ "sub": "ann", "exp": soon }));
    assert_eq!(xxim(&sidecar, "ann", &good), ACCEPTED);
    assert_eq!(im(&sidecar, "ann", &good), ACCEPTED);
    assert_eq!(xxim(&sidecar, "bob", &good), refused(FAILED), "another's");
    let late = hs256(&json!({ "sub": "ann", "exp": past }));
    assert_eq!(xxim(&sidecar, "ann", &late), refused(EXPIRED));
    for bad in [
        hs256(&json!({ "sub": "ann" })),
        hs256(&json!({ "exp": soon })),
        hs256(&json!({ "sub": 7, "exp": soon })),
        hs256(&json!({ "sub": "ann", "exp": soon, "nbf": soon })),
        format!("{good}x"),
        good.replace('.', ""),
        String::new(),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.".into(),
    ] {
        assert_eq!(xxim(&sidecar, "ann", &bad), refused(FAILED), "{bad}");
    }
    let wrong = EncodingKey::from_secret(b"another secret of thirty-two bytes..");
    let forged = signed(Algorithm::HS256, &wrong, &json!({ "sub": "ann", "exp": soon }));
    assert_eq!(xxim(&sidecar, "ann", &forged), refused(FAILED));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let other = signed(Algorithm::HS512, &key, &json!({ "sub": "ann", "exp": soon }));
    assert_eq!(xxim(&sidecar, "ann", &other), refused(FAILED), "another algorithm");
    let nobody = hs256(&json!({ "sub": "", "exp": soon }));
    assert_eq!(xxim(&sidecar, "", &nobody), refused(FAILED));
}

/// Issuers with numeric ids (SQL) write them as numbers.
#[test]
fn a_user_may_be_a_whole_number() {
    let sidecar = sidecar(Verifier::Jwt(Box::new(jwt(JwtAlgorithm::Hs256))));
    let token = |sub: &str| {
        let claims = format!(r#"{{"sub":{sub},"exp":{}}}"#, unix_now() + 60);
        hs256_of(r#"{"alg":"HS256"}"#, &claims)
    };
    for (sub, user) in [
        ("42", "42"),
        ("-42", "-42"),
        ("18446744073709551615", "18446744073709551615"),
        ("\"0042\"", "0042"),
    ] {
        assert_eq!(im(&sidecar, user, &token(sub)), ACCEPTED, "{sub}");
        assert_eq!(xxim(&sidecar, user, &token(sub)), ACCEPTED, "{sub}");
    }
    for (sub, user) in [
        ("42", "43"),
        ("42", "042"),
        ("42.0", "42"),
        ("42.0", "42.0"),
        ("1e3", "1000"),
        ("-0", "0"),
        ("18446744073709551616", "18446744073709551616"),
        ("true", "true"),
        ("[42]", "42"),
        ("null", "null"),
    ] {
        assert_eq!(im(&sidecar, user, &token(sub)), refused(FAILED), "{sub}");
    }
}

/// RFC 7515 section 4.1.11: who does not know what is critical must refuse.
#[test]
fn tokens_with_crit_are_refused() {
    let sidecar = sidecar(Verifier::Jwt(Box::new(jwt(JwtAlgorithm::Hs256))));
    let claims = format!(r#"{{"sub":"ann","exp":{}}}"#, unix_now() + 60);
    let good = hs256_of(r#"{"alg":"HS256","kid":"1","b64":true}"#, &claims);
    assert_eq!(im(&sidecar, "ann", &good), ACCEPTED);
    for crit in [r#"["b64"]"#, r#"["exp"]"#, "[]", "null", "\"b64\"", r#"{"b64":true}"#] {
        let header = format!(r#"{{"alg":"HS256","crit":{crit},"b64":true}}"#);
        assert_eq!(im(&sidecar, "ann", &hs256_of(&header, &claims)), refused(FAILED), "{crit}");
    }
}

#[test]
fn claims_are_mapped_as_configured() {
    let settings = Jwt {
        user_claim: "uid".into(),
        platform_claim: "plat".into(),
        device_claim: "dev".into(),
        issuer: "https://id.example".into(),
        audience: "chat".into(),
        ..jwt(JwtAlgorithm::Hs256)
    };
    let sidecar = sidecar(Verifier::Jwt(Box::new(settings)));
    let good = json!({
        "uid": "ann", "plat": "windows", "dev": "xxxx", "iss": "https://id.example",
        "aud": ["mail", "chat"], "exp": unix_now() + 60, "level": 3, "name": "Ann",
        "tags": ["vip", 1, "old"],
    });
    let tags = vec!["vip".to_owned(), "old".to_owned()];
    let profile = Some(Profile { level: 3, nickname: "Ann".into(), tags });
    assert_eq!(xxim(&sidecar, "ann", &hs256(&good)), Verdict::Accepted { profile });
    for (claim, value) in [
        ("plat", json!("ios")),
        ("dev", json!(null)),
        ("iss", json!("https://evil.example")),
        ("aud", json!("mail")),
        ("uid", json!(["ann"])),
    ] {
        let mut bad = good.clone();
        bad[claim] = value;
        assert_eq!(xxim(&sidecar, "ann", &hs256(&bad)), refused(FAILED), "{claim}");
        bad.as_object_mut().expect("an object").remove(claim);
        assert_eq!(xxim(&sidecar, "ann", &hs256(&bad)), refused(FAILED), "no {claim}");
    }
}

#[test]
fn public_keys_verify_and_a_secret_made_of_them_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let ec = rcgen::KeyPair::generate().expect("a key");
    let rsa = include_bytes!("vectors/xxim/test-key.pem");
    let rows = [
        (
            JwtAlgorithm::Es256,
            Algorithm::ES256,
            EncodingKey::from_ec_pem(ec.serialize_pem().as_bytes()).expect("a key"),
            ec.public_key_pem(),
        ),
        (
            JwtAlgorithm::Rs256,
            Algorithm::RS256,
            EncodingKey::from_rsa_pem(rsa).expect("a key"),
            include_str!("vectors/xxim/test-key.pub.pem").to_owned(),
        ),
    ];
    for (algorithm, used, private, public) in rows {
        let key_file = folder.path().join(format!("{used:?}.pem"));
        std::fs::write(&key_file, &public).expect("a file");
        let settings = Jwt { key_file, ..jwt(algorithm) };
        let sidecar = sidecar(Verifier::Jwt(Box::new(settings)));
        let (soon, past) = (unix_now() + 60, unix_now() - 60);
        let token = |exp| signed(used, &private, &json!({ "sub": "ann", "exp": exp }));
        assert_eq!(xxim(&sidecar, "ann", &token(soon)), ACCEPTED);
        assert_eq!(xxim(&sidecar, "ann", &token(past)), refused(EXPIRED));
        let mut damaged = token(soon).into_bytes();
        let place = damaged.len() - 10;
        damaged[place] = if damaged[place] == b'A' { b'B' } else { b'A' };
        let damaged = String::from_utf8(damaged).expect("ASCII");
        assert_eq!(xxim(&sidecar, "ann", &damaged), refused(FAILED));
        // The classical confusion: the public key as the secret of HS256.
        let confused = EncodingKey::from_secret(public.as_bytes());
        let claims = json!({ "sub": "ann", "exp": soon });
        let forged = signed(Algorithm::HS256, &confused, &claims);
        assert_eq!(xxim(&sidecar, "ann", &forged), refused(FAILED));
    }
}

#[test]
fn a_backend_that_takes_json_is_asked_for_im() {
    let backend = Backend::start(|seen| {
        let asked: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let answer = match asked["userId"].as_str() {
            Some("ann") => r#"{"ok":true}"#,
            Some("vip") => r#"{"ok":true,"level":7,"nickname":"V","tag":"gold"}"#,
            Some("bob") => r#"{"ok":false}"#,
            Some("odd") => "yes",
            _ => return response("500 Oops", br#"{"ok":true}"#),
        };
        response("200 OK", answer.as_bytes())
    });
    let sidecar = sidecar(Verifier::Http(format!("{}/login?x=1", backend.url())));
    assert_eq!(im(&sidecar, "ann", "token"), ACCEPTED);
    let seen = backend.next();
    assert_eq!(seen.line, "POST /login?x=1 HTTP/1.1");
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let asked: Value = serde_json::from_slice(&seen.body).expect("JSON");
    let expected = json!({ "token": "token", "userId": "ann", "remoteAddr": "203.0.113.7" });
    assert_eq!(asked, expected);
    let profile = Profile { level: 7, nickname: "V".into(), tags: vec!["gold".into()] };
    assert_eq!(im(&sidecar, "vip", ""), Verdict::Accepted { profile: Some(profile) });
    for user in ["bob", "odd", "eve"] {
        assert_eq!(im(&sidecar, user, ""), refused(FAILED), "{user}");
    }
}

#[test]
fn a_backend_that_takes_protobuf_is_asked_for_xxim() {
    let backend = Backend::start(|seen| {
        let asked = pb::BeforeConnectReq::decode(&*seen.body).expect("a BeforeConnectReq");
        let user = asked.conn_param.expect("always").user_id;
        let refusal = |msg: &str| {
            let answer = pb::BeforeConnectResp { code: 1, msg: msg.into() };
            response("200 OK", &answer.encode_to_vec())
        };
        match &*user {
            "ann" => response("200 OK", b""),
            "bob" => refusal("用户被禁用"),
            "two" => refusal(""),
            "odd" => response("200 OK", b"\xff"),
            "403" => response("403 Forbidden", b""),
            _ => response("503 Busy", b""),
        }
    });
    let sidecar = sidecar(Verifier::Http(format!("{}/hooks", backend.url())));
    assert_eq!(xxim(&sidecar, "ann", "t"), ACCEPTED);
    assert_eq!(backend.next().line, "POST /hooks/beforeConnect HTTP/1.1");
    assert_eq!(xxim(&sidecar, "bob", "t"), refused("用户被禁用"));
    assert_eq!(xxim(&sidecar, "two", "t"), refused("您的账号在其他设备登录"));
    assert_eq!(xxim(&sidecar, "403", "t"), refused(FAILED));
    for user in ["odd", "eve"] {
        let verdict = xxim(&sidecar, user, "t");
        assert!(matches!(verdict, Verdict::Unavailable(_)), "{user}: {verdict:?}");
    }
}

#[test]
fn backends_that_are_not_there_let_nobody_in() {
    for verifier in [
        Verifier::Http("http://127.0.0.1:9/hooks".into()),
        Verifier::Grpc("http://127.0.0.1:9".into()),
    ] {
        let sidecar = sidecar(verifier);
        for verdict in [xxim(&sidecar, "ann", "t"), im(&sidecar, "ann", "t")] {
            assert!(matches!(verdict, Verdict::Unavailable(_)), "{verdict:?}");
        }
    }
    // Nor one that is too slow; for IM that is a refusal.
    let backend = Backend::start(|_| None);
    let short = Duration::from_millis(50);
    let verifier = Verifier::Http(backend.url());
    let login =
        LoginSettings { verifier, timeout: short, json_timeout: short, ..Default::default() };
    let sidecar = Sidecar::start(ringway::sidecar::SidecarSettings { login, ..settings() });
    assert!(matches!(xxim(&sidecar, "ann", "t"), Verdict::Unavailable(_)));
    assert_eq!(im(&sidecar, "ann", "t"), refused(FAILED));
}

/// Answers by the user that it is asked about.
#[derive(Default)]
struct Im(Arc<Mutex<Vec<pb::ConnParam>>>);

#[tonic::async_trait]
impl ImService for Im {
    async fn before_connect(
        &self,
        request: tonic::Request<pb::BeforeConnectReq>,
    ) -> Result<Response<pb::BeforeConnectResp>, Status> {
        let param = request.into_inner().conn_param.unwrap_or_default();
        let user = param.user_id.clone();
        self.0.lock().unwrap().push(param);
        match &*user {
            "ann" => Ok(Response::new(pb::BeforeConnectResp::default())),
            "bob" => Ok(Response::new(pb::BeforeConnectResp { code: 0, msg: "no".into() })),
            "ban" => Err(Status::unauthenticated("ip被封禁")),
            _ => Err(Status::internal("oops")),
        }
    }

    async fn before_request(
        &self,
        _: tonic::Request<pb::BeforeRequestReq>,
    ) -> Result<Response<pb::BeforeRequestResp>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn after_connect(
        &self,
        _: tonic::Request<pb::AfterConnectReq>,
    ) -> Result<Response<pb::CommonResp>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn after_disconnect(
        &self,
        _: tonic::Request<pb::AfterDisconnectReq>,
    ) -> Result<Response<pb::CommonResp>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[test]
fn im_service_is_asked_over_grpc() {
    let runtime = server::runtime();
    let im_service = Im::default();
    let asked = im_service.0.clone();
    let routes = Routes::new(ImServiceServer::new(im_service)).into_axum_router();
    let sidecar = sidecar(Verifier::Grpc(server::serve(&runtime, routes)));
    assert_eq!(xxim(&sidecar, "ann", "t"), ACCEPTED);
    assert_eq!(im(&sidecar, "ann", "t"), ACCEPTED);
    assert_eq!(xxim(&sidecar, "bob", "t"), refused("no"));
    assert_eq!(xxim(&sidecar, "ban", "t"), refused("ip被封禁"));
    assert!(matches!(xxim(&sidecar, "eve", "t"), Verdict::Unavailable(_)));
    let asked = asked.lock().unwrap();
    let first = &asked[0];
    assert_eq!((&*first.token, &*first.platform, &*first.ips), ("t", "windows", "203.0.113.7"));
    assert_eq!(first.device_id, "xxxx");
}
