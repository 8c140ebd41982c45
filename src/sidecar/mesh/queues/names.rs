//! What the queues of a cluster are called in NATS, and what is said to JetStream: one work-queue
//! stream per cluster, one subject and one consumer per topic.
//!
//! Everything is a plain NATS message whose answer comes to one inbox, in whose subject stands what
//! it answers ([`About`]). The requests are those of NATS 2.9 and later.

use bytes::Bytes;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use crate::limits::{QUEUE_ACK_TIME, QUEUE_CONSUMER_TIME, QUEUE_PENDING_MAX, QUEUE_REPEAT_TIME};
use crate::protocols::connmix::config::Queue;

const MESSAGES_MAX: &str = "max_msgs_per_subject";
const BYTES_MAX: &str = "max_bytes";
/// Longest name of a topic that is its own token.
const TOKEN_BYTES_MAX: usize = 120;
/// `err_code` of JetStream: the stream is full.
const STORE_FAILED: u64 = 10_077;
/// `err_code` of JetStream: there is no such stream.
const NO_STREAM: u64 = 10_059;
/// `err_code`s of JetStream: there is no such message, when it is asked for and when it is to be
/// removed.
const NO_MESSAGE: u64 = 10_037;
const NO_SEQUENCE: u64 = 10_043;

/// The place of a topic in subjects and names: letters, digits, `-` and `_` stand for themselves,
/// other bytes are `=` and two hexadecimal digits. A long name is `==` and its SHA-1.
pub(super) fn token(topic: &str) -> Box<str> {
    let mut token = String::with_capacity(topic.len());
    for byte in topic.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => token.push(byte.into()),
            _ => token.push_str(&format!("={byte:02X}")),
        }
    }
    if token.len() > TOKEN_BYTES_MAX {
        let digest = Sha1::digest(topic.as_bytes());
        token = String::from("==");
        digest.iter().for_each(|byte| token.push_str(&format!("{byte:02x}")));
    }
    token.into()
}

/// What an answer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// The push of this number.
    Push(u64),
    /// The pull of this number, of the topic with this token.
    Pull(Box<str>, u64),
    /// The acknowledgements up to this number.
    Done(Box<str>, u64),
    /// The making of a topic's consumer.
    Consumer(Box<str>),
    /// The oldest message of a topic.
    Oldest(Box<str>),
    /// The removal of a topic's message of this number.
    Removed(Box<str>, u64),
    /// The state of the stream.
    Info,
    /// The making or changing of the stream.
    Made,
}

/// The subjects of a cluster, and one process's inbox.
#[derive(Clone, Debug)]
pub(super) struct Names {
    stream: String,
    subjects: String,
    inbox: String,
}

impl Names {
    /// `cluster`: letters, digits, `-` and `_`. `inbox`: a subject of this process alone.
    pub fn new(cluster: &str, inbox: String) -> Names {
        let stream = format!("ringway-{cluster}-queues");
        Names { stream, subjects: format!("ringway.{cluster}.queue."), inbox }
    }

    /// The name of the stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Where all answers come but those to pulls.
    pub fn answers(&self) -> String {
        format!("{}.r.>", self.inbox)
    }

    /// Where messages of a topic come, and answers to its pulls.
    pub fn pulls(&self, token: &str) -> String {
        format!("{}.m.{token}.*", self.inbox)
    }

    /// The subject of a topic.
    pub fn subject(&self, token: &str) -> String {
        format!("{}{token}", self.subjects)
    }

    /// The token of a topic, from its subject.
    pub fn token<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.subjects).filter(|token| !token.contains('.'))
    }

    /// Where an answer is to come.
    pub fn reply(&self, about: &About) -> String {
        let inbox = &self.inbox;
        match about {
            About::Pull(token, number) => format!("{inbox}.m.{token}.{number}"),
            About::Push(number) => format!("{inbox}.r.push.{number}"),
            About::Done(token, number) => format!("{inbox}.r.done.{token}.{number}"),
            About::Consumer(token) => format!("{inbox}.r.consumer.{token}"),
            About::Oldest(token) => format!("{inbox}.r.oldest.{token}"),
            About::Removed(token, number) => format!("{inbox}.r.removed.{token}.{number}"),
            About::Info => format!("{inbox}.r.info"),
            About::Made => format!("{inbox}.r.made"),
        }
    }

    /// What an answer is about, from where it came; `None` if it came elsewhere.
    pub fn about(&self, subject: &str) -> Option<About> {
        let mut parts = subject.strip_prefix(&self.inbox)?.strip_prefix('.')?.split('.');
        let kind = match parts.next()? {
            "r" => parts.next()?,
            kind => kind,
        };
        let mut text = || parts.next();
        Some(match kind {
            "m" => About::Pull(text()?.into(), text()?.parse().ok()?),
            "push" => About::Push(text()?.parse().ok()?),
            "done" => About::Done(text()?.into(), text()?.parse().ok()?),
            "consumer" => About::Consumer(text()?.into()),
            "oldest" => About::Oldest(text()?.into()),
            "removed" => About::Removed(text()?.into(), text()?.parse().ok()?),
            "info" => About::Info,
            "made" => About::Made,
            _ => return None,
        })
    }

    /// Asks for the state of the stream.
    pub fn info(&self) -> String {
        format!("$JS.API.STREAM.INFO.{}", self.stream)
    }

    /// Makes the stream.
    pub fn create(&self, queue: &Queue) -> (String, Bytes) {
        let config = json!({
            "name": self.stream,
            "description": "queue topics of Ringway",
            "subjects": [self.subject("*")],
            "retention": "workqueue",
            "storage": "file",
            "discard": "new",
            "discard_new_per_subject": true,
            MESSAGES_MAX: queue.topic_messages_max,
            BYTES_MAX: queue.cluster_bytes_max,
            "max_msgs": -1,
            "max_consumers": -1,
            "num_replicas": queue.replicas,
            "duplicate_window": nanoseconds(QUEUE_REPEAT_TIME),
        });
        (format!("$JS.API.STREAM.CREATE.{}", self.stream), config.to_string().into())
    }

    /// Makes the limits of the stream larger if these are: nodes that are told different ones
    /// agree on the largest, and no message is dropped because of a smaller one.
    pub fn raise(&self, queue: &Queue, answer: &Value) -> Option<(String, Bytes)> {
        let mut config = answer["config"].clone();
        let wanted = [
            (MESSAGES_MAX, u64::from(queue.topic_messages_max)),
            (BYTES_MAX, queue.cluster_bytes_max),
        ];
        let lower = |(name, wanted): &(&str, u64)| {
            // Without a limit there is no larger one.
            config[*name].as_i64().is_some_and(|is| is > 0 && (is as u64) < *wanted)
        };
        let raised: Vec<_> = wanted.into_iter().filter(lower).collect();
        if raised.is_empty() {
            return None;
        }
        raised.into_iter().for_each(|(name, wanted)| config[name] = wanted.into());
        Some((format!("$JS.API.STREAM.UPDATE.{}", self.stream), config.to_string().into()))
    }

    /// Makes the consumer of a topic, if it is not there.
    pub fn make_consumer(&self, token: &str) -> (String, Bytes) {
        let (stream, filter) = (&self.stream, self.subject(token));
        let config = json!({
            "stream_name": stream,
            "config": {
                "name": token,
                "durable_name": token,
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "ack_wait": nanoseconds(QUEUE_ACK_TIME),
                "max_deliver": -1,
                "max_ack_pending": QUEUE_PENDING_MAX,
                "replay_policy": "instant",
                "filter_subject": filter,
                "inactive_threshold": nanoseconds(QUEUE_CONSUMER_TIME),
            },
        });
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{token}.{filter}");
        (subject, config.to_string().into())
    }

    /// Asks for so many messages of a topic, and no more than so many bytes of them.
    pub fn pull(
        &self,
        token: &str,
        batch: usize,
        bytes_max: usize,
        expires_ms: u64,
    ) -> (String, Bytes) {
        let expires = expires_ms * 1_000_000;
        let body = json!({ "batch": batch, "expires": expires, "max_bytes": bytes_max });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{token}", self.stream);
        (subject, body.to_string().into())
    }

    /// Asks for the oldest message of a topic.
    pub fn oldest(&self, token: &str) -> (String, Bytes) {
        let body = json!({ "next_by_subj": self.subject(token), "seq": 1 });
        (format!("$JS.API.STREAM.MSG.GET.{}", self.stream), body.to_string().into())
    }

    /// Removes a message. (A purge of the topic would not do: NATS 2.9 then forgets all that its
    /// consumer has given and not had acknowledged.)
    pub fn remove(&self, number: u64) -> (String, Bytes) {
        let body = json!({ "seq": number, "no_erase": true });
        (format!("$JS.API.STREAM.MSG.DELETE.{}", self.stream), body.to_string().into())
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    time.as_nanos() as u64
}

/// Why JetStream did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The topic or the stream is full.
    Full,
    /// There is no such stream.
    NoStream,
    /// There is no such message.
    NoMessage,
    /// Anything else: no JetStream, no leader, no answer that can be read.
    Other(String),
}

/// Reads an answer of JetStream.
pub(super) fn answer(body: &[u8]) -> Result<Value, Refusal> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|_| Refusal::Other("the answer is no JSON".to_owned()))?;
    let Some(error) = value.get("error") else { return Ok(value) };
    let text = error["description"].as_str().unwrap_or_default();
    Err(match error["err_code"].as_u64() {
        Some(STORE_FAILED) if text.starts_with("maximum ") => Refusal::Full,
        Some(NO_STREAM) => Refusal::NoStream,
        Some(NO_MESSAGE | NO_SEQUENCE) => Refusal::NoMessage,
        _ => Refusal::Other(text.to_owned()),
    })
}

/// What JetStream says of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub messages: u64,
    /// Messages of one topic that it takes.
    pub messages_max: u64,
}

/// The state of the stream, from an answer about it.
pub(super) fn stored(answer: &Value) -> Stored {
    Stored {
        messages: answer["state"]["messages"].as_u64().unwrap_or_default(),
        messages_max: answer["config"][MESSAGES_MAX].as_u64().unwrap_or(u64::MAX),
    }
}

/// The number of a message, from an answer with it.
pub(super) fn number(answer: &Value) -> Option<u64> {
    answer["message"]["seq"].as_u64()
}

/// Number of a message in the stream and how often it has been delivered, from the subject to
/// which it is acknowledged. Later servers put two more parts in front of the stream's name.
pub(super) fn delivery(ack: &str) -> Option<(u64, u64)> {
    let parts: Vec<&str> = ack.split('.').collect();
    if parts.get(..2) != Some(&["$JS", "ACK"]) {
        return None;
    }
    let at = match parts.len() {
        9 => 4,
        11.. => 6,
        _ => return None,
    };
    Some((parts[at + 1].parse().ok()?, parts[at].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_token_of_its_own_that_subjects_and_names_take() {
        assert_eq!(&*token("chat-1_A"), "chat-1_A");
        assert_eq!(&*token("a.b *>=\u{e9}"), "a=2Eb=20=2A=3E=3D=C3=A9");
        let (long, longer) = (token(&"x".repeat(121)), token(&"x".repeat(255)));
        assert_eq!(long.len(), 42);
        assert!(long.starts_with("==") && long != longer);
        assert_eq!(token(&"x".repeat(120)).len(), 120);
    }

    #[test]
    fn an_answer_says_what_it_is_about() {
        let names = Names::new("c-1", "_INBOX.abc".to_owned());
        let all = [
            About::Push(7),
            About::Pull("t".into(), 1),
            About::Done("t=20".into(), u64::MAX),
            About::Consumer("t".into()),
            About::Oldest("t".into()),
            About::Removed("t".into(), 3),
            About::Info,
            About::Made,
        ];
        for about in all {
            assert_eq!(names.about(&names.reply(&about)), Some(about));
        }
        for wrong in ["", ".r", ".r.push", ".r.push.x", "d.r.info", ".m.t", ".x.y"] {
            assert_eq!(names.about(&format!("_INBOX.abc{wrong}")), None, "{wrong}");
        }
        assert_eq!(names.token(&names.subject("t")), Some("t"));
        assert_eq!(names.token("ringway.c-1.queue.a.b"), None);
        assert_eq!(names.token("ringway.other.queue.a"), None);
    }

    #[test]
    fn deliveries_of_all_servers_are_read() {
        assert_eq!(delivery("$JS.ACK.S.a.2.5014.6.1795280079211270716.0"), Some((5014, 2)));
        let later = "$JS.ACK.hub.acc.S.a.1.9.6.1795280079211270716.0.tok";
        assert_eq!(delivery(later), Some((9, 1)));
        for wrong in ["", "$JS.ACK.S.a.x.1.1.1.1", "$JS.ACK.S.a.1", "_INBOX.S.a.1.1.1.1.1.1"] {
            assert_eq!(delivery(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let refusal = |code: u64, text: &str| {
            let body = json!({ "error": { "code": 1, "err_code": code, "description": text } });
            answer(body.to_string().as_bytes()).expect_err("an error")
        };
        assert_eq!(refusal(10_077, "maximum messages per subject exceeded"), Refusal::Full);
        assert_eq!(refusal(10_077, "maximum bytes exceeded"), Refusal::Full);
        assert_eq!(refusal(10_077, "disk"), Refusal::Other("disk".to_owned()));
        assert_eq!(refusal(10_059, "stream not found"), Refusal::NoStream);
        assert_eq!(refusal(10_037, "no message found"), Refusal::NoMessage);
        assert_eq!(refusal(10_043, "sequence 5 not found"), Refusal::NoMessage);
        assert!(matches!(answer(b"?"), Err(Refusal::Other(_))));
        assert_eq!(answer(br#"{"stream":"S","seq":4}"#).map(|ok| ok["seq"].as_u64()), Ok(Some(4)));
    }

    #[test]
    fn no_limit_of_a_stream_becomes_smaller() {
        let state = |messages: i64, bytes: i64| {
            json!({
                "config": { MESSAGES_MAX: messages, BYTES_MAX: bytes, "num_replicas": 3 },
                "state": { "messages": 4 },
            })
        };
        let queue = Queue {
            topic_messages_max: 2000,
            topic_bytes_max: 1,
            topics_max: 1,
            full: crate::protocols::connmix::config::QueueFull::Error,
            scope: crate::protocols::connmix::config::QueueScope::Cluster,
            cluster_bytes_max: 1 << 30,
            replicas: 1,
        };
        let names = Names::new("c", "_INBOX.a".to_owned());
        let known = Stored { messages: 4, messages_max: 5000 };
        assert_eq!(stored(&state(5000, -1)), known);
        assert_eq!(stored(&state(-1, -1)), Stored { messages_max: u64::MAX, ..known });
        for enough in [state(2000, 1 << 30), state(5000, -1)] {
            assert_eq!(names.raise(&queue, &enough), None);
        }
        let (subject, body) = names.raise(&queue, &state(1000, 1 << 40)).expect("a change");
        assert_eq!(subject, "$JS.API.STREAM.UPDATE.ringway-c-queues");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body, state(2000, 1 << 40)["config"]);
        let (_, body) = names.create(&queue);
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(names.raise(&queue, &json!({ "config": body })), None);
    }
}
