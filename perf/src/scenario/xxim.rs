//! `xxim`: the load loop of xxim's own client: many requests under way on one connection, against
//! an upstream that answers at once (xxim section 8); with `--encrypted` under keys.
//!
//! The upstream is in this process (`upstream.rs`), so that nothing but the gateway is measured
//! with the server's CPU time.

use std::time::Duration;

use prost::Message;
use ringway::protocols::xxim::wire::cipher::Cipher;
use ringway::protocols::xxim::wire::proto as pb;
use ringway::wire::websocket::mask_frame;

use super::Load;
use crate::Result;
use crate::options::Size;
use crate::rig::{Rig, STAMP, payload, stamp};

/// Bytes of a reqId, as xxim's own client has them.
const REQ_ID: usize = 32;
/// Where the reqId stands in a response: behind event, two lengths and its own key.
const REQ_ID_AT: usize = 6;
const BINARY: u8 = 0x82;

/// Seeds of keys and their ciphertexts for the server's key (section 3.8).
const KEY_SEED: &[u8] = b"9f86d081884c7d659a2feaa0c55ad015";
const IV_SEED: &[u8] = b"3c6e0b8a9c15224a8228b9a98ca1531d";
const VECTORS: &str = include_str!("../../../tests/vectors/xxim/vectors.txt");

/// See the module.
pub struct Requests {
    clients: Vec<u32>,
    /// What follows the reqId in a request.
    rest: Vec<u8>,
    /// With `--encrypted`: of all clients.
    cipher: Option<Cipher>,
}

impl Requests {
    pub fn prepare(size: &Size, rig: &mut Rig) -> Result<Requests> {
        let server = rig.server.client;
        let clients =
            rig.net.connect_clients(server, size.clients.unwrap_or(1), |_| "/ws".to_owned())?;
        let cipher = size.encrypted.then(|| Cipher::new(KEY_SEED, IV_SEED));
        for (number, &client) in clients.iter().enumerate() {
            log_in(rig, client, number, cipher.as_ref())?;
        }
        let body = pb::RequestBody {
            req_id: String::new(),
            method: "/v1/msg/sendMsgList".to_owned(),
            data: message().encode_to_vec().into(),
        };
        let requests = Requests { clients, rest: body.encode_to_vec(), cipher };
        for &client in &requests.clients {
            requests.send(rig, client, size.window.unwrap_or(64))?;
        }
        Ok(requests)
    }

    /// Sends so many requests with one write: the load shares the machine with the gateway.
    fn send(&self, rig: &mut Rig, client: u32, count: usize) -> Result<()> {
        let mut frames = Vec::new();
        for _ in 0..count {
            let mut request = vec![0x0a, REQ_ID as u8];
            request.extend_from_slice(&payload(REQ_ID, rig.tally.now(), 0));
            request.extend_from_slice(&self.rest);
            if let Some(cipher) = &self.cipher {
                cipher.encrypt(&mut request, 0);
            }
            frames.extend_from_slice(&mask_frame(BINARY, [0x5a, 0x17, 0xc3, 0x99], &request));
        }
        rig.net.send(client, &frames)
    }
}

impl Load for Requests {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        let ready = rig.net.wait(Duration::from_secs(5))?;
        if ready.is_empty() {
            return Err("no response within 5 s".into());
        }
        for client in ready {
            let now = rig.tally.now();
            let mut answered = 0;
            let mut wrong = None;
            let (cipher, mut plain) = (&self.cipher, Vec::new());
            rig.net.read(client, |push| match sent_at(unsealed(push, cipher, &mut plain)) {
                Some(sent) => {
                    rig.tally.count(sent, now);
                    answered += 1;
                }
                None => wrong = Some(format!("a request has failed: {push:02x?}")),
            })?;
            if let Some(wrong) = wrong {
                return Err(wrong.into());
            }
            self.send(rig, client, answered)?;
        }
        rig.net.closed.is_empty().then_some(()).ok_or_else(|| "the server closed a client".into())
    }
}

/// Sets parameters and user, plain or with keys.
pub fn log_in(rig: &mut Rig, client: u32, number: usize, cipher: Option<&Cipher>) -> Result<()> {
    let user = pb::SetUserParamsReq {
        user_id: "test123456".to_owned(),
        token: "tok.en.sig".to_owned(),
        ..Default::default()
    };
    let first = set_params(number, cipher.is_some())?;
    let mut second = request("/v1/conn/white/setUserParams", &user);
    if let Some(cipher) = cipher {
        cipher.encrypt(&mut second, 0);
    }
    for request in [first, second] {
        rig.net.send(client, &mask_frame(BINARY, [1, 2, 3, 4], &request))?;
    }
    let is_response = |message: &[u8]| match cipher {
        // Nothing else comes in whole blocks.
        Some(_) => message.len().is_multiple_of(16),
        None => pb::PushBody::decode(message).is_ok_and(|push| push.event == 2),
    };
    await_responses(rig, client, 2, is_response)
}

/// A set-params request, with the ciphertexts of the seeds if there are to be keys.
pub fn set_params(number: usize, keyed: bool) -> Result<Vec<u8>> {
    let ciphertext = |name: &str| match keyed {
        true => vector(name),
        false => Ok(Vec::new()),
    };
    let params = pb::SetCxnParamsReq {
        package_id: format!("device-{number}"),
        platform: "windows".to_owned(),
        aes_key: ciphertext("K01")?.into(),
        aes_iv: ciphertext("K02")?.into(),
        ..Default::default()
    };
    Ok(request("/v1/conn/white/setCxnParams", &params))
}

fn vector(name: &str) -> Result<Vec<u8>> {
    let mut lines = VECTORS.lines().filter_map(|line| line.split_once(' '));
    let (_, hex) = lines.find(|(found, _)| *found == name).ok_or("a vector is missing")?;
    let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    hex.as_bytes().chunks(2).map(byte).collect()
}

/// A message as it was before it was encrypted.
fn unsealed<'a>(push: &'a [u8], cipher: &Option<Cipher>, plain: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(cipher) = cipher else { return push };
    plain.clear();
    plain.extend_from_slice(push);
    match cipher.decrypt(plain) {
        Ok(len) => &plain[..len],
        Err(_) => push,
    }
}

/// Waits for so many responses; the greeting may have come with the answer to the upgrade.
fn await_responses(
    rig: &mut Rig,
    client: u32,
    count: usize,
    is_response: impl Fn(&[u8]) -> bool,
) -> Result<()> {
    let mut missing = count;
    rig.until(|rig, peer| {
        rig.net.read(peer, |message| {
            let response = is_response(message) && peer == client;
            missing = missing.saturating_sub(usize::from(response));
        })?;
        Ok(missing == 0)
    })
}

/// When the request of a successful response was sent; `None`: it is none.
fn sent_at(push: &[u8]) -> Option<u64> {
    let response = pb::PushBody::decode(push).ok()?;
    let body = pb::ResponseBody::decode(response.data).ok()?;
    debug_assert_eq!(body.req_id.as_bytes(), push.get(REQ_ID_AT..REQ_ID_AT + REQ_ID)?);
    let (sent, _) = stamp(body.req_id.as_bytes().get(..STAMP)?)?;
    (response.event == 2 && body.code == 0).then_some(sent)
}

/// A request with the reqId `r`.
pub fn request(method: &str, message: &impl Message) -> Vec<u8> {
    let data = message.encode_to_vec().into();
    pb::RequestBody { req_id: "r".to_owned(), method: method.to_owned(), data }.encode_to_vec()
}

/// The message of the load loop: 292 bytes with its envelope (vector P01).
fn message() -> pb::SendMsgListReq {
    let sender_info = r#"{"avatar":"https://fakeimg.pl/500x500/C71585/FFF/?font=noto\u0026text=贺",
        "id":"test123456","nickname":"test123456"}"#;
    let options = pb::msg_data::Options {
        storage_for_server: true,
        storage_for_client: true,
        update_conv_msg: true,
        update_unread_count: true,
        ..Default::default()
    };
    let offline_push = pb::msg_data::OfflinePush {
        title: "标题".to_owned(),
        content: "内容".to_owned(),
        payload: String::new(),
    };
    let message = pb::MsgData {
        client_msg_id: "92eb5fee6ae2fec3ad71cd7775315778".to_owned(),
        client_time: "1677200000000".to_owned(),
        sender_id: "test123456".to_owned(),
        sender_info: sender_info.replace("\n        ", "").into(),
        conv_id: "group:10134".to_owned(),
        content_type: 11,
        content: "1".into(),
        options: Some(options),
        offline_push: Some(offline_push),
        ..Default::default()
    };
    pb::SendMsgListReq { msg_data_list: vec![message], ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_says_when_its_request_was_sent() {
        let req_id = String::from_utf8(payload(REQ_ID, 77, 0)).expect("ASCII");
        let body = pb::ResponseBody { req_id, ..Default::default() };
        let push = pb::PushBody { event: 2, data: body.encode_to_vec().into() };
        assert_eq!(sent_at(&push.encode_to_vec()), Some(77));
        let body = pb::ResponseBody { code: 8, ..body };
        let push = pb::PushBody { event: 2, data: body.encode_to_vec().into() };
        assert_eq!(sent_at(&push.encode_to_vec()), None);
    }
}
