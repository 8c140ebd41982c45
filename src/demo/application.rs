//! The demo's business rules (netsvr section 13): events of the gateway in, commands and queries
//! out. No socket and no clock.
//!
//! Every event appends at most a few frames to the output, for each query exactly one entry waits
//! for its answer, and answers come in the order of the queries. State about clients lives in the
//! gateway (session, customerId, topics), so nothing grows here with their number.
//!
//! Costs: one JSON document parsed and one written per client message; no system calls.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::link::{self, invalid};
use super::replies::{self, Account, OK, REFUSED, Said, reply};
use super::requests::{self as ask, Request, filled, listed, paired};
use super::rooms;
use crate::protocols::netsvr::wire::Generation;
use crate::wire::worker::Cmd;
use crate::wire::worker::proto as pb;

/// The password of every name.
pub const PASSWORD: &str = "demo";

const NAME_BYTES_MAX: usize = 64;
const FORGED_TOPICS_MAX: usize = 10_000;
const FORGED_SESSION_BYTES_MAX: usize = 1024 * 1024;

const CONN_OPEN: u32 = Cmd::ConnOpen as u32;
const CONN_CLOSE: u32 = Cmd::ConnClose as u32;
const TRANSFER: u32 = Cmd::Transfer as u32;

const OPEN_INFO: i64 = 1;
const CLOSE_INFO: i64 = 2;
const MESSAGE: &str = "you have a message";

/// What becomes of a request: nothing more to say, or why it was refused.
type Outcome = Result<(), String>;

/// The demo business process without its connections.
pub(super) struct Application {
    generation: Generation,
    pending: VecDeque<Pending>,
    forged: u64,
}

/// A query whose answer a client waits for.
struct Pending {
    query: Cmd,
    cmd: i64,
    uniq_id: String,
}

impl Application {
    pub fn new(generation: Generation) -> Application {
        Application { generation, pending: VecDeque::new(), forged: 0 }
    }

    /// Queries whose answers have not come yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// A new connection to the gateway: answers to older queries will not come. Gives their number.
    pub fn forget_queries(&mut self) -> usize {
        std::mem::take(&mut self.pending).len()
    }

    /// An event frame. Commands and queries are appended to `out`, for the task connection.
    ///
    /// # Errors
    /// The gateway sent something that is not an event; the connection is of no more use.
    pub fn event(&mut self, cmd: u32, body: Bytes, out: &mut BytesMut) -> io::Result<()> {
        match cmd {
            CONN_OPEN => self.opened(&body, out).map_err(malformed),
            CONN_CLOSE => Ok(()),
            TRANSFER => {
                let transfer = pb::Transfer::decode(body).map_err(malformed)?;
                self.message(&transfer, out);
                Ok(())
            }
            other => Err(invalid(format!("the gateway sent command {other} as an event"))),
        }
    }

    /// A frame from the task connection: the answer to the oldest query.
    ///
    /// # Errors
    /// It is not the answer to that query; the connection is of no more use.
    pub fn answer(&mut self, cmd: u32, body: Bytes, out: &mut BytesMut) -> io::Result<()> {
        let Some(pending) = self.pending.pop_front() else {
            return Err(invalid(format!("the gateway sent command {cmd}, but nothing was asked")));
        };
        if cmd != pending.query as u32 {
            let query = pending.query;
            return Err(invalid(format!("the gateway answered {query:?} with command {cmd}")));
        }
        let data = replies::answer(pending.query, &body).map_err(malformed)?;
        let whole = reply(pending.cmd, OK, "done", data);
        let length = whole.len();
        if !single_cast(&pending.uniq_id, whole, out) {
            let problem = format!("the answer has {length} bytes, too many for one frame");
            refuse(&pending.uniq_id, pending.cmd, &problem, out);
        }
        Ok(())
    }

    /// Cmd 1, which every client waits for. `xRealIp` and `remoteAddr` are there because they help
    /// to see what a proxy does.
    fn opened(&mut self, body: &[u8], out: &mut BytesMut) -> Result<(), prost::DecodeError> {
        let open = match self.generation {
            Generation::G5 => pb::ConnOpen5::decode(body)?,
            Generation::G6 => {
                let open = pb::ConnOpen6::decode(body)?;
                pb::ConnOpen5 {
                    uniq_id: open.uniq_id,
                    raw_query: open.raw_query,
                    sub_protocol: Vec::new(),
                    x_forwarded_for: open.x_forwarded_for,
                    x_real_ip: open.x_real_ip,
                    remote_addr: open.remote_addr,
                }
            }
        };
        let data = serde_json::json!({
            "uniqId": open.uniq_id, "rawQuery": open.raw_query, "subProtocol": open.sub_protocol,
            "xForwardedFor": open.x_forwarded_for, "xRealIp": open.x_real_ip,
            "remoteAddr": open.remote_addr,
        });
        // A request head is far shorter than a frame may be.
        let _ = single_cast(&open.uniq_id, reply(OPEN_INFO, OK, "welcome", data), out);
        Ok(())
    }

    fn message(&mut self, from: &pb::Transfer, out: &mut BytesMut) {
        if let Some(message) = rooms::message(from) {
            return rooms::answer(&message, out);
        }
        let data = &from.data;
        if !(data.starts_with(b"{") && data.ends_with(b"}")) {
            if !single_cast(&from.uniq_id, data.clone(), out) {
                refuse(&from.uniq_id, 0, "the message is too long to come back in one frame", out);
            }
            return;
        }
        let (cmd, outcome) = match Request::read(data) {
            Ok(request) => (request.cmd, self.request(from, request, out)),
            Err(problem) => (0, Err(problem)),
        };
        if let Err(problem) = outcome {
            refuse(&from.uniq_id, cmd, &problem, out);
        }
    }

    fn request(&mut self, from: &pb::Transfer, request: Request, out: &mut BytesMut) -> Outcome {
        match request.cmd {
            3..=12 | 17 | 31..=35 => self.query(from, request, out),
            13 => sign_in(from, request.parameters()?, out),
            14 if from.customer_id.is_empty() => Err("you are not signed in".to_owned()),
            14 | 16 => sign_out(from, request.cmd, out),
            15 => self.forged_sign_in(from, request.parameters()?, out),
            18..=20 => force_offline(request, out),
            21..=27 => cast(from, request, out),
            28..=30 | 36 | 37 => topic(from, request, out),
            OPEN_INFO | CLOSE_INFO => Err("only the server sends this command".to_owned()),
            other => Err(format!("unknown cmd {other}; there are 3 to 37")),
        }
    }

    fn query(&mut self, from: &pb::Transfer, request: Request, out: &mut BytesMut) -> Outcome {
        let cmd = request.cmd;
        let (query, sent) = match cmd {
            3 => (Cmd::Metrics, put_query(out, Cmd::Metrics)),
            4 => {
                let ask::Limit { on_open, on_message } = request.parameters()?;
                (Cmd::Limit, link::put(out, Cmd::Limit, &pb::LimitReq { on_open, on_message }))
            }
            5 => (Cmd::UniqIdList, put_query(out, Cmd::UniqIdList)),
            6 => (Cmd::UniqIdCount, put_query(out, Cmd::UniqIdCount)),
            7 => (Cmd::CustomerIdList, put_query(out, Cmd::CustomerIdList)),
            8 => (Cmd::CustomerIdCount, put_query(out, Cmd::CustomerIdCount)),
            9 => {
                let ask::ConnInfo { uniq_ids } = request.parameters()?;
                let uniq_ids = uniq_ids.unwrap_or_else(|| vec![from.uniq_id.clone()]);
                (Cmd::ConnInfo, link::put(out, Cmd::ConnInfo, &conn_info(uniq_ids)))
            }
            10 => {
                let message = conn_info_by_customer(request.parameters()?);
                (Cmd::ConnInfoByCustomerId, link::put(out, Cmd::ConnInfoByCustomerId, &message))
            }
            11 => (Cmd::TopicCount, put_query(out, Cmd::TopicCount)),
            12 => (Cmd::TopicList, put_query(out, Cmd::TopicList)),
            17 => {
                let ask::UniqIds { uniq_ids } = request.parameters()?;
                let message = pb::CheckOnlineReq { uniq_ids };
                (Cmd::CheckOnline, link::put(out, Cmd::CheckOnline, &message))
            }
            _ => topic_query(request, out)?,
        };
        fits(sent)?;
        self.pending.push_back(Pending { query, cmd, uniq_id: from.uniq_id.clone() });
        Ok(())
    }

    /// Cmd 15, the login of load tests: a new customerId, topics of two random letters and a
    /// session of a given length.
    fn forged_sign_in(
        &mut self,
        from: &pb::Transfer,
        wanted: ask::ForgedSignIn,
        out: &mut BytesMut,
    ) -> Outcome {
        if wanted.topic_num > FORGED_TOPICS_MAX {
            return Err(format!("data: topicNum must not exceed {FORGED_TOPICS_MAX}"));
        }
        if wanted.session_len > FORGED_SESSION_BYTES_MAX {
            return Err(format!("data: sessionLen must not exceed {FORGED_SESSION_BYTES_MAX}"));
        }
        self.forged += 1;
        let id = format!("forged-{}", self.forged);
        let account = Account { id: &id, name: &id, uniq_id: &from.uniq_id };
        let data = reply(15, OK, "signed in", account);
        let letters = || (0..2).map(|_| fastrand::lowercase()).collect();
        let update = pb::ConnInfoUpdate {
            uniq_id: from.uniq_id.clone(),
            new_session: "s".repeat(wanted.session_len),
            new_topics: (0..wanted.topic_num).map(|_| letters()).collect(),
            new_customer_id: id,
            data,
        };
        fits(link::put(out, Cmd::ConnInfoUpdate, &update))
    }
}

fn malformed(error: prost::DecodeError) -> io::Error {
    invalid(format!("a frame of the gateway does not decode: {error}"))
}

fn fits(sent: bool) -> Outcome {
    match sent {
        true => Ok(()),
        false => Err(format!("more than {} bytes in one frame", link::FRAME_BYTES_MAX)),
    }
}

fn single_cast(uniq_id: &str, data: Bytes, out: &mut BytesMut) -> bool {
    link::put(out, Cmd::SingleCast, &pb::SingleCast { uniq_id: uniq_id.to_owned(), data })
}

fn refuse(uniq_id: &str, cmd: i64, problem: &str, out: &mut BytesMut) {
    let data = reply(cmd, REFUSED, problem, ());
    // Problems are sentences, but one may quote what a client sent.
    if !single_cast(uniq_id, data, out) {
        let _ = single_cast(uniq_id, reply(cmd, REFUSED, "the request is wrong", ()), out);
    }
}

/// Queries without parameters have no body.
fn put_query(out: &mut BytesMut, query: Cmd) -> bool {
    link::put(out, query, &())
}

fn conn_info(uniq_ids: Vec<String>) -> pb::ConnInfoReq {
    pb::ConnInfoReq { uniq_ids, req_session: true, req_customer_id: true, req_topic: true }
}

fn conn_info_by_customer(ask: ask::CustomerIds) -> pb::ConnInfoByCustomerIdReq {
    pb::ConnInfoByCustomerIdReq {
        customer_ids: ask.customer_ids,
        req_session: true,
        req_uniq_id: true,
        req_topic: true,
    }
}

fn topic_query(request: Request, out: &mut BytesMut) -> Result<(Cmd, bool), String> {
    Ok(match request.cmd {
        31 => {
            let ask::TopicCounts { topics, count_all } = request.parameters()?;
            let message = pb::TopicUniqIdCountReq { topics, count_all };
            (Cmd::TopicUniqIdCount, link::put(out, Cmd::TopicUniqIdCount, &message))
        }
        32 => {
            let ask::Topics { topics } = request.parameters()?;
            let message = pb::TopicUniqIdListReq { topics };
            (Cmd::TopicUniqIdList, link::put(out, Cmd::TopicUniqIdList, &message))
        }
        33 => {
            let ask::Topics { topics } = request.parameters()?;
            let message = pb::TopicCustomerIdListReq { topics };
            (Cmd::TopicCustomerIdList, link::put(out, Cmd::TopicCustomerIdList, &message))
        }
        34 => {
            let ask::Topics { topics } = request.parameters()?;
            let query = Cmd::TopicCustomerIdToUniqIdsList;
            (query, link::put(out, query, &pb::TopicCustomerIdToUniqIdsListReq { topics }))
        }
        _ => {
            let ask::TopicCounts { topics, count_all } = request.parameters()?;
            let message = pb::TopicCustomerIdCountReq { topics, count_all };
            (Cmd::TopicCustomerIdCount, link::put(out, Cmd::TopicCustomerIdCount, &message))
        }
    })
}

/// Cmd 13: any name with the demo password. The name becomes the customerId; topics stay.
fn sign_in(from: &pb::Transfer, wanted: ask::SignIn, out: &mut BytesMut) -> Outcome {
    let ask::SignIn { name, password } = wanted;
    filled("name", &name)?;
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("data: name must not exceed {NAME_BYTES_MAX} bytes"));
    }
    if password != PASSWORD {
        return Err(format!("wrong password; that of every name is \"{PASSWORD}\""));
    }
    let account = Account { id: &name, name: &name, uniq_id: &from.uniq_id };
    let data = reply(13, OK, "signed in", account);
    let update = pb::ConnInfoUpdate {
        uniq_id: from.uniq_id.clone(),
        new_session: serde_json::json!({ "name": name }).to_string(),
        new_customer_id: name,
        new_topics: Vec::new(),
        data,
    };
    fits(link::put(out, Cmd::ConnInfoUpdate, &update))
}

/// Cmd 14 and 16.
fn sign_out(from: &pb::Transfer, cmd: i64, out: &mut BytesMut) -> Outcome {
    let delete = pb::ConnInfoDelete {
        uniq_id: from.uniq_id.clone(),
        del_session: true,
        del_customer_id: true,
        del_topic: true,
        data: reply(cmd, OK, "signed out", ()),
    };
    fits(link::put(out, Cmd::ConnInfoDelete, &delete))
}

/// Cmd 18 to 20. Who is closed is told so with cmd 2; who asked gets no answer.
fn force_offline(request: Request, out: &mut BytesMut) -> Outcome {
    let data = reply(CLOSE_INFO, OK, "you were taken offline", ());
    fits(match request.cmd {
        18 => {
            let ask::CustomerIds { customer_ids } = request.parameters()?;
            listed("customerIds", &customer_ids)?;
            let message = pb::ForceOfflineByCustomerId { customer_ids, data };
            link::put(out, Cmd::ForceOfflineByCustomerId, &message)
        }
        19 => {
            let ask::UniqId { uniq_id } = request.parameters()?;
            filled("uniqId", &uniq_id)?;
            let message = pb::ForceOffline { uniq_ids: vec![uniq_id], data };
            link::put(out, Cmd::ForceOffline, &message)
        }
        _ => {
            let ask::Guest { uniq_id, delay } = request.parameters()?;
            filled("uniqId", &uniq_id)?;
            let message = pb::ForceOfflineGuest { uniq_ids: vec![uniq_id], delay, data };
            link::put(out, Cmd::ForceOfflineGuest, &message)
        }
    })
}

/// Who a message is from, as its receivers see it.
fn sender(from: &pb::Transfer) -> String {
    match from.customer_id.as_str() {
        "" => format!("uniqId({})", from.uniq_id),
        name => name.to_owned(),
    }
}

/// The parameters of a cast, and its message as receivers get it.
fn said(from: &pb::Transfer, cmd: i64, message: &str) -> Bytes {
    reply(cmd, OK, MESSAGE, Said { from_user: &sender(from), message })
}

fn all_said(from: &pb::Transfer, cmd: i64, messages: &[String]) -> Vec<Bytes> {
    messages.iter().map(|message| said(from, cmd, message)).collect()
}

/// Cmd 21 to 27. The receivers get the message under the number of the command.
fn cast(from: &pb::Transfer, request: Request, out: &mut BytesMut) -> Outcome {
    let cmd = request.cmd;
    fits(match cmd {
        21 => {
            let ask::ToCustomerId { customer_id, message } = request.parameters()?;
            filled("customerId", &customer_id)?;
            let data = said(from, cmd, &message);
            let message = pb::SingleCastByCustomerId { customer_id, data };
            link::put(out, Cmd::SingleCastByCustomerId, &message)
        }
        22 => {
            let ask::ToUniqId { uniq_id, message } = request.parameters()?;
            filled("uniqId", &uniq_id)?;
            single_cast(&uniq_id, said(from, cmd, &message), out)
        }
        23 => {
            let ask::BulkToUniqIds { uniq_ids, message } = request.parameters()?;
            paired("uniqIds", uniq_ids.len(), message.len())?;
            let data = all_said(from, cmd, &message);
            link::put(out, Cmd::SingleCastBulk, &pb::SingleCastBulk { uniq_ids, data })
        }
        24 => {
            let ask::BulkToCustomerIds { customer_ids, message } = request.parameters()?;
            paired("customerIds", customer_ids.len(), message.len())?;
            let data = all_said(from, cmd, &message);
            let message = pb::SingleCastBulkByCustomerId { customer_ids, data };
            link::put(out, Cmd::SingleCastBulkByCustomerId, &message)
        }
        25 => {
            let ask::ToUniqIds { uniq_ids, message } = request.parameters()?;
            listed("uniqIds", &uniq_ids)?;
            let data = said(from, cmd, &message);
            link::put(out, Cmd::Multicast, &pb::Multicast { uniq_ids, data })
        }
        26 => {
            let ask::ToCustomerIds { customer_ids, message } = request.parameters()?;
            listed("customerIds", &customer_ids)?;
            let data = said(from, cmd, &message);
            let message = pb::MulticastByCustomerId { customer_ids, data };
            link::put(out, Cmd::MulticastByCustomerId, &message)
        }
        _ => {
            let ask::ToAll { message } = request.parameters()?;
            let data = said(from, cmd, &message);
            link::put(out, Cmd::Broadcast, &pb::Broadcast { data })
        }
    })
}

/// Cmd 28 to 30, 36 and 37.
fn topic(from: &pb::Transfer, request: Request, out: &mut BytesMut) -> Outcome {
    let cmd = request.cmd;
    fits(match cmd {
        28 => {
            let topics = topics(request)?;
            let data = reply(cmd, OK, "subscribed", ());
            let message = pb::TopicSubscribe { uniq_id: from.uniq_id.clone(), topics, data };
            link::put(out, Cmd::TopicSubscribe, &message)
        }
        29 => {
            let topics = topics(request)?;
            let data = reply(cmd, OK, "unsubscribed", ());
            let message = pb::TopicUnsubscribe { uniq_id: from.uniq_id.clone(), topics, data };
            link::put(out, Cmd::TopicUnsubscribe, &message)
        }
        30 => {
            let topics = topics(request)?;
            let data = reply(cmd, OK, "topic deleted", ());
            link::put(out, Cmd::TopicDelete, &pb::TopicDelete { topics, data })
        }
        36 => {
            let ask::ToTopics { topics, message } = request.parameters()?;
            listed("topics", &topics)?;
            let data = said(from, cmd, &message);
            link::put(out, Cmd::TopicPublish, &pb::TopicPublish { topics, data })
        }
        _ => {
            let ask::BulkToTopics { topics, message } = request.parameters()?;
            paired("topics", topics.len(), message.len())?;
            let data = all_said(from, cmd, &message);
            link::put(out, Cmd::TopicPublishBulk, &pb::TopicPublishBulk { topics, data })
        }
    })
}

fn topics(request: Request) -> Result<Vec<String>, String> {
    let ask::Topics { topics } = request.parameters()?;
    listed("topics", &topics)?;
    Ok(topics)
}

#[cfg(test)]
#[path = "application_tests.rs"]
mod tests;
