//! What clients of the demo send: the parameters of each command (netsvr section
//! 13).
//!
//! Every problem is a sentence for the client, which gets it with code 1.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::wire::json;

/// The outer message. `data` is a JSON document as a string, as the published clients send it; the
/// document itself is accepted too.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    pub cmd: i64,
    #[serde(default)]
    pub data: Value,
}

impl Request {
    /// Reads a message.
    pub fn read(message: &[u8]) -> Result<Request, String> {
        let message = json::tree(message).ok_or("not a request: this is not JSON")?;
        serde_json::from_value(message).map_err(|error| format!("not a request: {error}"))
    }

    /// The parameters of the command.
    pub fn parameters<T: DeserializeOwned>(self) -> Result<T, String> {
        let document = match self.data {
            Value::String(text) if text.trim().is_empty() => Value::Object(Default::default()),
            Value::String(text) => json::tree(text.as_bytes()).ok_or("data: this is not JSON")?,
            Value::Null => Value::Object(Default::default()),
            document => document,
        };
        serde_json::from_value(document).map_err(|error| format!("data: {error}"))
    }
}

#[derive(Deserialize)]
pub(super) struct SignIn {
    #[serde(alias = "username")]
    pub name: String,
    pub password: String,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
pub(super) struct ForgedSignIn {
    pub topic_num: usize,
    pub session_len: usize,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Limit {
    pub on_open: i32,
    pub on_message: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UniqIds {
    pub uniq_ids: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ConnInfo {
    pub uniq_ids: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CustomerIds {
    pub customer_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Guest {
    pub uniq_id: String,
    #[serde(default)]
    pub delay: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UniqId {
    pub uniq_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToUniqId {
    pub uniq_id: String,
    pub message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToCustomerId {
    pub customer_id: String,
    pub message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToUniqIds {
    pub uniq_ids: Vec<String>,
    pub message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToCustomerIds {
    pub customer_ids: Vec<String>,
    pub message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BulkToUniqIds {
    pub uniq_ids: Vec<String>,
    pub message: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BulkToCustomerIds {
    pub customer_ids: Vec<String>,
    pub message: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct ToAll {
    pub message: String,
}

#[derive(Deserialize)]
pub(super) struct Topics {
    pub topics: Vec<String>,
}

/// Topics to count: those listed, or all.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct TopicCounts {
    pub topics: Vec<String>,
    pub count_all: bool,
}

#[derive(Deserialize)]
pub(super) struct ToTopics {
    pub topics: Vec<String>,
    pub message: String,
}

#[derive(Deserialize)]
pub(super) struct BulkToTopics {
    pub topics: Vec<String>,
    pub message: Vec<String>,
}

/// A string that must say something.
pub(super) fn filled(name: &str, value: &str) -> Result<(), String> {
    match value {
        "" => Err(format!("data: {name} must not be empty")),
        _ => Ok(()),
    }
}

/// A list that must name somebody.
pub(super) fn listed(name: &str, list: &[String]) -> Result<(), String> {
    match list {
        [] => Err(format!("data: {name} must not be empty")),
        _ => Ok(()),
    }
}

/// The forms of a bulk command that the gateway delivers: several messages to one receiver, or one
/// message for each receiver.
pub(super) fn paired(name: &str, receivers: usize, messages: usize) -> Result<(), String> {
    match (receivers, messages) {
        (0, _) => Err(format!("data: {name} must not be empty")),
        (_, 0) => Err("data: message must not be empty".to_owned()),
        (1, _) => Ok(()),
        (n, m) if n == m => Ok(()),
        (n, m) => Err(format!(
            "data: {m} messages for {n} {name}; there must be one for each, or a single receiver"
        )),
    }
}
