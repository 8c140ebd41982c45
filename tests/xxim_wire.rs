//! xxim's wire format: the vectors of the specification's section 10, byte for byte, through the
//! hand-written code and through prost.

#[path = "xxim/vectors.rs"]
mod vectors;

use bytes::Bytes;
use prost::Message;
use ringway::protocols::xxim::wire::cipher::Cipher;
use ringway::protocols::xxim::wire::proto::{
    self, BeforeConnectReq, GetFriendListReq, GetFriendListResp, KickUserConnReq, LoginReq,
    LoginResp, MsgDataList, NoticeData, PushBody, RequestBody, ResponseBody, SendMsgListReq,
    SendMsgReq,
};
use ringway::protocols::xxim::wire::{
    self as wire, Body, Carrier, ClientRequest, Identity, Leniency, Params, Push, Response,
    UserParams, Version, code, text,
};

use vectors::vector;

const LENIENT: Leniency = Leniency { lenient: true, legacy: false };
/// Section 3.8.
const KEY_SEED: &[u8] = b"9f86d081884c7d659a2feaa0c55ad015";
const IV_SEED: &[u8] = b"3c6e0b8a9c15224a8228b9a98ca1531d";

/// The client of the scenario, before login.
fn stranger() -> Identity {
    let body = vector("V06");
    let request = ClientRequest::parse(&body).expect("V06 is a request");
    let params = Params::parse(request.data, Version::V2, LENIENT).expect("V06 has parameters");
    let mut identity = Identity { ip: "203.0.113.7".into(), ..Identity::default() };
    params.apply(&mut identity);
    identity
}

/// The same after login.
fn client() -> Identity {
    let body = vector("V10");
    let request = ClientRequest::parse(&body).expect("V10 is a request");
    let user = UserParams::parse(request.data).expect("V10 has a user");
    Identity { user_id: user.user_id.into(), token: user.token.into(), ..stranger() }
}

fn written(body: &impl Body) -> Vec<u8> {
    let mut out = Vec::new();
    body.put(&mut out);
    assert_eq!(out.len(), body.size());
    out
}

fn response(to: &ClientRequest<'_>, code: i32, data: &[u8]) -> Vec<u8> {
    let (head, _) = wire::head(to.req_id, to.method);
    written(&Response { head: &head, code, data })
}

/// The response to a vector.
fn answer(request: &str, code: i32, data: &[u8]) -> Vec<u8> {
    let body = vector(request);
    response(&ClientRequest::parse(&body).expect(request), code, data)
}

#[test]
fn responses_to_the_scenario() {
    let list = GetFriendListResp { ids: vec!["u2".into(), "u3".into()], ..Default::default() };
    let list = list.encode_to_vec();
    let login = vector("V08r");
    let cases: [(&str, &str, &[u8]); 9] = [
        ("V02", "V03", b""),
        ("V04", "V05", b""),
        ("V06", "V07", b""),
        ("V08", "V09", &login),
        ("V10", "V11", b""),
        ("V12", "V13", &list),
        ("V14", "V15", b""),
        ("V19", "V19r", b""),
        ("P01", "P02", b""),
    ];
    for (request, expected, data) in cases {
        assert_eq!(answer(request, code::SUCCESS, data), vector(expected), "{expected}");
    }
}

#[test]
fn responses_that_echo_the_parameters() {
    let body = vector("V06");
    let request = ClientRequest::parse(&body).expect("a request");
    let params = Params::parse(request.data, Version::V2, LENIENT).expect("parameters");
    assert_eq!(response(&request, 0, &params.said()), vector("V07g"));
    let body = vector("V10");
    let request = ClientRequest::parse(&body).expect("a request");
    let user = UserParams::parse(request.data).expect("a user");
    assert_eq!(response(&request, 0, &user.said()), vector("V11g"));
    // Document 1 gets its own message back.
    let body = vector("V02");
    let request = ClientRequest::parse(&body).expect("a request");
    let params = Params::parse(request.data, Version::V1, LENIENT).expect("parameters");
    assert_eq!(params.said(), request.data);
}

#[test]
fn failures() {
    let not_logged_in = wire::common_resp(code::AUTH, Some(text::NOT_LOGGED_IN));
    let request = ClientRequest { req_id: "r6", method: "/v1/relation/getFriendList", data: &[] };
    assert_eq!(response(&request, code::AUTH, &not_logged_in), vector("V16"));
    let request = ClientRequest { req_id: "r7", method: "/v1/no/such", data: &[] };
    let unknown = wire::common_resp(code::REQUEST, None);
    assert_eq!(response(&request, code::REQUEST, &unknown), vector("V17"));
    assert_eq!(response(&request, code::REQUEST, &[]), vector("V17g"));
    let alert = "{\"actions\":[{\"action\":0,\"title\":\"确定\",\"jumpTo\":\"\"}],\"msg\":\"M\",\
                 \"title\":\"T\"}";
    let alert = wire::common_resp(code::ALERT, Some(alert));
    let request = ClientRequest { req_id: "r8", method: "/v1/msg/sendMsgList", data: &[] };
    assert_eq!(response(&request, code::ALERT, &alert), vector("V18"));
    let request = ClientRequest { req_id: "r9", method: "/v1/relation/getFriendList", data: &[] };
    let retry = wire::common_resp(code::RETRY, Some(wire::default_text(code::RETRY)));
    assert_eq!(response(&request, code::RETRY, &retry), vector("V18b"));
    let busy = wire::common_resp(code::INTERNAL, Some(wire::default_text(code::INTERNAL)));
    let nothing = ClientRequest::parse(b"\xff").expect_err("not a message");
    assert_eq!(response(&nothing, code::INTERNAL, &busy), vector("V18c"));
    let body = vector("N07");
    let cut = ClientRequest::parse(&body).expect_err("cut off");
    assert_eq!((cut.req_id, cut.method), ("n7", ""));
}

#[test]
fn requests_as_upstreams_get_them() {
    let (before, after) = (wire::common_req(&stranger()), wire::common_req(&client()));
    let cases = [("V08", 1, &before, "V08u"), ("V12", 1, &after, "V12u")];
    for (name, tag, common_req, expected) in cases {
        let body = vector(name);
        let request = ClientRequest::parse(&body).expect(name);
        let injected = wire::inject(request.data, tag, common_req).expect("a message");
        assert_eq!(injected, vector(expected), "{expected}");
    }
    for name in ["V14", "V14v1", "N08"] {
        let body = vector(name);
        let request = ClientRequest::parse(&body).expect(name);
        assert_eq!(request.method, wire::SEND_MSG_LIST);
        let injected = wire::inject_send_msg_list(request.data, true, &after).expect("a message");
        assert_eq!(injected, vector("V14u"), "{name}");
    }
    // With document 1 left as it is, the identity stands where document 1 has it.
    let body = vector("V14v1");
    let request = ClientRequest::parse(&body).expect("a request");
    let injected = wire::inject_send_msg_list(request.data, false, &after).expect("a message");
    let read = proto::SendMsgListReqV1::decode(injected).expect("a message");
    assert_eq!(read.common_req.map(|own| own.user_id), Some("test123456".into()));
    let envelope =
        wire::envelope(&client(), Bytes::from_static(b"\x12\x06\x08\x01\x10\xbf\x84\x3d"));
    assert_eq!(envelope, vector("H01"));
}

#[test]
fn parameters_in_both_layouts() {
    let read = |name: &str, path| {
        let body = vector(name);
        let request = ClientRequest::parse(&body).expect(name);
        let params = Params::parse(request.data, path, LENIENT).expect(name);
        (params.version, params.platform.to_owned(), params.device().to_owned())
    };
    let ios = (Version::V1, "ios".to_owned(), "dev-0001".to_owned());
    assert_eq!(read("V02", Version::V1), ios);
    assert_eq!(read("N10", Version::V2), ios);
    assert_eq!(read("V06", Version::V2), (Version::V2, "windows".into(), "xxxx".into()));
    assert_eq!(read("E01", Version::V2), (Version::V2, "android".into(), "pkg-1".into()));
    assert_eq!(read("N11", Version::V2), (Version::V2, "pc".into(), "pkg-1".into()));
    let body = vector("E01");
    let request = ClientRequest::parse(&body).expect("a request");
    let params = Params::parse(request.data, Version::V2, LENIENT).expect("parameters");
    assert_eq!((params.aes_key, params.aes_iv), (&*vector("K01"), &*vector("K02")));
}

#[test]
fn pushes() {
    let notice = |name: &str| PushBody::decode(vector(name)).expect(name);
    let data = notice("V21").data;
    let push = |wrapped| written(&Push { event: 1, data: &data, wrapped });
    assert_eq!(push(false), vector("V21"));
    assert_eq!(push(true), vector("V21v1"));
    let messages = notice("V20");
    assert_eq!(messages.event, 0);
    let push = Push { event: 0, data: &messages.data, wrapped: false };
    assert_eq!(written(&push), vector("V20"));
    let seed = vector("X01");
    let seed = PushBody::decode(seed).expect("a push");
    let push = Push { event: wire::EVENT_AFTER_CONNECT, data: &seed.data, wrapped: false };
    assert_eq!(written(&push), vector("X01"));
    let cipher = Cipher::new(KEY_SEED, IV_SEED);
    let body = vector("V21");
    let sealed = Carrier::WebSocket.binary(&&*body, Some(&cipher));
    assert!(sealed.ends_with(&vector("E07")));
}

#[test]
fn ciphertexts() {
    let cipher = Cipher::new(KEY_SEED, IV_SEED);
    for name in ["E02", "E03", "E04", "E05", "E06", "E08"] {
        let plain = vector(&format!("{name}p"));
        let mut sealed = plain.to_vec();
        cipher.encrypt(&mut sealed, 0);
        assert_eq!(sealed, vector(name), "{name}");
        let len = cipher.decrypt(&mut sealed).expect(name);
        assert_eq!(sealed[..len], plain, "{name}");
    }
    let server = Cipher::new(KEY_SEED, b"e10adc3949ba59abbe56e057f20f883e");
    let mut sealed = vector("E02p").to_vec();
    server.encrypt(&mut sealed, 0);
    assert_eq!(sealed, vector("X02"));
    for name in ["N01", "N03", "N04", "N06"] {
        let mut damaged = vector(name).to_vec();
        assert!(cipher.decrypt(&mut damaged).is_err(), "{name}");
    }
    let mut truncated = vector("N05").to_vec();
    let len = cipher.decrypt(&mut truncated).expect("its padding is right");
    assert!(ClientRequest::parse(&truncated[..len]).is_err());
}

#[test]
fn tcp_frames_and_close_frames() {
    assert_eq!(Carrier::Tcp.text(wire::GREETING), vector("T01"));
    let answered = vector("V19r");
    assert_eq!(Carrier::Tcp.binary(&&*answered, None), vector("T03"));
    let cases = [
        ("C01", 3000, text::NO_CREDENTIALS),
        ("C02", 3000, text::AUTH_FAILED),
        ("C03", 3001, "rsa decrypt failed"),
        ("C04", 3002, "platform failed"),
        ("C05", 3003, "deviceId failed"),
        ("C06", 1008, "protocol error"),
        ("C07", 1001, "kick"),
        ("C08", 1000, "duplicate connection"),
        ("C09", 1000, "shake hand timeout"),
    ];
    for (name, code, reason) in cases {
        let frame = ringway::wire::websocket::close(code, reason);
        assert_eq!(frame[2..], vector(name), "{name}");
    }
}

/// What prost reads of a vector it writes again, so that tags and types of the messages are right.
#[test]
fn messages_are_those_of_the_specification() {
    fn same<M: Message + Default>(bytes: Bytes) -> M {
        let message = M::decode(bytes.clone()).expect("a message of this type");
        assert_eq!(message.encode_to_vec(), bytes);
        message
    }
    fn data(name: &str) -> Bytes {
        same::<RequestBody>(vector(name)).data
    }
    same::<proto::SetCxnParamsReqV1>(data("V02"));
    same::<proto::SetCxnParamsReq>(data("V06"));
    same::<proto::SetUserParamsReq>(data("V10"));
    same::<LoginReq>(data("V08"));
    same::<LoginResp>(vector("V08r"));
    same::<GetFriendListReq>(data("V12"));
    let sent = same::<SendMsgListReq>(data("V14"));
    assert_eq!(sent.msg_data_list[0].conv_id, "group:10134");
    same::<SendMsgListReq>(data("P01"));
    same::<SendMsgListReq>(vector("V14u"));
    same::<proto::SendMsgListReqV1>(data("V14v1"));
    same::<MsgDataList>(same::<PushBody>(vector("V20")).data);
    same::<NoticeData>(same::<PushBody>(vector("V21")).data);
    same::<proto::NoticeDataList>(same::<PushBody>(vector("V21v1")).data);
    same::<BeforeConnectReq>(vector("V10u"));
    let sent = same::<SendMsgReq>(vector("V22"));
    assert_eq!(
        (sent.event, sent.get_user_conn_req.expect("a filter").devices),
        (1, vec!["xxxx".into()])
    );
    same::<KickUserConnReq>(vector("V22k"));
    same::<proto::CommonReq>(vector("H01"));
    same::<proto::CommonResp>(vector("H02"));
    assert_eq!(vector("H03"), wire::common_resp(code::AUTH, Some("登录已过期")));
    for name in ["V03", "V07g", "V09", "V13", "V16", "V18", "V18b", "P02", "E09"] {
        same::<ResponseBody>(same::<PushBody>(vector(name)).data);
    }
}
