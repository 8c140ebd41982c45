//! Answers to xxim requests over HTTP (xxim section 7.1).

use bytes::Bytes;
use prost::Message;

use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::protocols::xxim::wire::code;
use crate::protocols::xxim::wire::proto::CommonResp;
use crate::wire::http::answer::{Answer, Manner};
use crate::wire::http::fault::Fault;

const PROTOBUF: &str = "application/x-protobuf";
const TEXT: &str = "text/plain; charset=utf-8";

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub manner: Manner,
    /// Header lines for browsers of other origins.
    pub cors: Box<str>,
}

impl super::Xxim {
    pub(crate) fn http_answer(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        form: &Form,
        answer: CommonResp,
    ) {
        if engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING) {
            return;
        }
        let body = answer.encode_to_vec();
        let content = Some((PROTOBUF, &*body));
        self.http_write(
            engine,
            slot,
            form.manner,
            Answer { status: "200 OK", headers: &form.cors, content, ..Answer::default() },
        );
    }

    /// Browsers ask before they send.
    pub(crate) fn http_options(&mut self, engine: &mut Engine, slot: u32, form: &Form) {
        let answer = Answer { status: "204 No Content", headers: &form.cors, ..Answer::default() };
        self.http_write(engine, slot, form.manner, answer);
    }

    /// What is not HTTP as it should be.
    pub(crate) fn http_fault(&mut self, engine: &mut Engine, slot: u32, fault: Fault) {
        self.http_refuse(engine, slot, fault.status(), "", fault.text());
    }

    /// A request that is refused is the last of its connection.
    pub(crate) fn http_refuse(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        status: &str,
        headers: &str,
        text: &str,
    ) {
        engine.counters.protocol_violations += 1;
        let content = Some((TEXT, text.as_bytes()));
        let answer = Answer { status, headers, content, ..Answer::default() };
        self.http_write(engine, slot, Manner::LAST, answer);
    }

    pub(crate) fn http_write(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        manner: Manner,
        answer: Answer<'_>,
    ) {
        let answer = answer.encode(manner, &engine.http_date());
        engine.push(slot, Bytes::from(answer));
        if manner.ends {
            engine.linger(slot);
        }
    }
}

/// The answer to a request that was carried out.
pub(crate) fn success(data: Bytes) -> CommonResp {
    CommonResp { code: code::SUCCESS, msg: Some(String::new()), data }
}

/// The answer to one that was not.
pub(crate) fn failure(code: i32, text: &str) -> CommonResp {
    CommonResp { code, msg: Some(text.to_owned()), data: Bytes::new() }
}
