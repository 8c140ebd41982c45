//! Reading what a request says: query parameters and the fields of a JSON body. Names that are not
//! known are refused with those that are, so that a typing mistake is no other question.

use serde_json::{Map, Value};

use super::asks::Place;
use super::fault::Fault;
use crate::engine::look::{Filter, Kind, Sort, State};
use crate::hub::ConnId;
use crate::lists::numbers::kind;
use crate::wire::network::Network;

/// Rows of an answer, if the request does not say how many.
const LIMIT: usize = 100;
/// Rows of an answer at the most.
pub(super) const LIMIT_MAX: usize = 1000;
/// Bytes of a close reason (RFC 6455 section 5.5).
const REASON_BYTES_MAX: usize = 123;

/// The query of a request, each name at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a query string. Empty values count as not said.
    pub fn parse(query: &str, known: &[&str]) -> Result<Params, Fault> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&&*name) {
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(Fault::bad(format!("unknown parameter {name:?}; there are: {known}")));
            }
            if pairs.iter().any(|(other, _)| *other == *name) {
                return Err(Fault::bad(format!("parameter {name:?} is there twice")));
            }
            if !value.is_empty() {
                pairs.push((name.into_owned(), value.into_owned()));
            }
        }
        Ok(Params(pairs))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Whether other nodes are asked too.
    pub fn is_wide(&self) -> Result<bool, Fault> {
        match self.get("cluster") {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(Fault::bad(format!("cluster is {other:?}; it can be 1 or 0"))),
        }
    }

    /// The one node that is meant, if it is said.
    pub fn node(&self) -> Result<Option<u16>, Fault> {
        let Some(text) = self.get("node") else { return Ok(None) };
        let node = text.parse().ok().filter(|node| (1..=1023).contains(node));
        match node {
            Some(node) => Ok(Some(node)),
            None => Err(Fault::bad(format!("node is {text:?}; it can be 1 to 1023"))),
        }
    }

    /// The query without what says which nodes are meant.
    pub fn local(&self) -> String {
        let pairs = self.0.iter().filter(|(name, _)| name != "cluster" && name != "node");
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }

    /// Rows at the most.
    pub fn limit(&self) -> Result<usize, Fault> {
        let Some(text) = self.get("limit") else { return Ok(LIMIT) };
        let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| Fault::bad(format!("limit is {text:?}; it can be 1 to {LIMIT_MAX}")))
    }

    /// Which connections are meant. `listeners` are the addresses of the listeners.
    pub fn filter(&self, listeners: &[String]) -> Result<Filter, Fault> {
        Ok(Filter {
            kinds: self.get("protocol").map(kinds).transpose()?,
            user: self.get("user").map(Box::from),
            topic: self.get("topic").map(Box::from),
            network: self.get("address").map(network).transpose()?,
            listeners: self.get("listener").map(|text| listener(text, listeners)).transpose()?,
            state: self.get("state").map(state).transpose()?,
        })
    }

    /// What stands first.
    pub fn sort(&self) -> Result<Option<Sort>, Fault> {
        Ok(match self.get("sort") {
            None => None,
            Some("age") => Some(Sort::Age),
            Some("idle") => Some(Sort::Idle),
            Some("outbox") => Some(Sort::Outbox),
            Some("in") => Some(Sort::In),
            Some("out") => Some(Sort::Out),
            Some(other) => {
                let words = "age, idle, outbox, in, out";
                return Err(Fault::bad(format!("sort is {other:?}; it can be {words}")));
            }
        })
    }

    /// Whether names are sorted by their number of connections.
    pub fn by_count(&self) -> Result<bool, Fault> {
        match self.get("sort") {
            None | Some("name") => Ok(false),
            Some("members" | "connections") => Ok(true),
            Some(other) => {
                Err(Fault::bad(format!("sort is {other:?}; it can be name, members, connections")))
            }
        }
    }

    /// Where a list of connections goes on.
    pub fn place(&self) -> Result<Option<Place>, Fault> {
        let Some(text) = self.get("after") else { return Ok(None) };
        let numbers: Option<Vec<u64>> = text.split('-').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[key, generation, index]) => {
                let part = |number: u64| u32::try_from(number).ok();
                let parts = part(generation).zip(part(index));
                let parts =
                    parts.ok_or_else(|| Fault::bad("after is not a `next` of an answer"))?;
                Ok(Some(Place { key, conn: ConnId::from_parts(parts.0, parts.1) }))
            }
            _ => Err(Fault::bad("after is not a `next` of an answer")),
        }
    }
}

/// A place as `after` has it.
pub(super) fn place_text(place: Place) -> String {
    format!("{}-{}-{}", place.key, place.conn.generation(), place.conn.index())
}

fn kinds(word: &str) -> Result<Vec<Kind>, Fault> {
    let named = (0u8..).zip(kind::NAMES).skip(1);
    let kinds: Vec<Kind> =
        named.filter(|(_, name)| **name == word).map(|(number, _)| Kind(number)).collect();
    match kinds.is_empty() {
        false => Ok(kinds),
        true => {
            let words = kind::NAMES[1..].join(", ");
            Err(Fault::bad(format!("protocol is {word:?}; it can be {words}")))
        }
    }
}

fn network(text: &str) -> Result<Network, Fault> {
    Network::parse(text).ok_or_else(|| {
        Fault::bad(format!("address is {text:?}; it can be 192.0.2.1 or a network, 192.0.2.0/24"))
    })
}

fn listener(text: &str, listeners: &[String]) -> Result<Vec<u16>, Fault> {
    let numbered = (0u16..).zip(listeners);
    let found: Vec<u16> =
        numbered.filter(|(_, address)| **address == text).map(|(number, _)| number).collect();
    match found.is_empty() {
        false => Ok(found),
        true => {
            let all = listeners.join(", ");
            Err(Fault::bad(format!("there is no listener {text:?}; there are: {all}")))
        }
    }
}

fn state(word: &str) -> Result<State, Fault> {
    let found = State::NAMES.iter().find(|(_, name)| *name == word);
    found.map(|(state, _)| *state).ok_or_else(|| {
        let words = State::NAMES.map(|(_, name)| name).join(", ");
        Fault::bad(format!("state is {word:?}; it can be {words}"))
    })
}

/// The fields of a JSON body; an empty one has none.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body.
    pub fn parse(body: &[u8], known: &[&str]) -> Result<Fields, Fault> {
        if body.is_empty() {
            return Ok(Fields(Map::new()));
        }
        let fields: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|error| Fault::bad(format!("the body is no JSON object: {error}")))?;
        match fields.keys().find(|name| !known.contains(&&***name)) {
            None => Ok(Fields(fields)),
            Some(name) => {
                let known = known.join(", ");
                Err(Fault::bad(format!("unknown field {name:?}; there are: {known}")))
            }
        }
    }

    /// A text, if it is there.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Fault> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Fault::bad(format!("{name} is no text"))),
        }
    }

    /// A text that must be there and not be empty.
    pub fn needed(&self, name: &str) -> Result<&str, Fault> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| Fault::bad(format!("the body needs the field {name:?}")))
    }

    /// Close code and reason (RFC 6455 section 7.4); 1000 and nothing if they are not said.
    pub fn close(&self) -> Result<(u16, &str), Fault> {
        let code = match self.0.get("code") {
            None => 1000,
            Some(value) => {
                let may = |code: &u64| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                let code = value.as_u64().filter(may);
                let wrong = || Fault::bad("code can be 1000 to 1003, 1007 to 1014, 3000 to 4999");
                code.ok_or_else(wrong)? as u16
            }
        };
        let reason = self.text("reason")?.unwrap_or_default();
        match reason.len() <= REASON_BYTES_MAX {
            true => Ok((code, reason)),
            false => Err(Fault::bad(format!("reason has more than {REASON_BYTES_MAX} bytes"))),
        }
    }
}
