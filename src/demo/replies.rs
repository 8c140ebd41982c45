//! What the demo sends to clients: `{"cmd":..,"data":{"code":..,"message":"..","data":..}}`.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::{DecodeError, Message};
use serde::Serialize;
use serde_json::{Value, json};

use crate::wire::worker::Cmd;
use crate::wire::worker::proto as pb;

/// Code of an answer to a request that was carried out, and of a message from another client.
pub(super) const OK: u8 = 0;
/// Code of an answer that says what is wrong with a request.
pub(super) const REFUSED: u8 = 1;

#[derive(Serialize)]
struct Reply<'a, T> {
    cmd: i64,
    data: Body<'a, T>,
}

#[derive(Serialize)]
struct Body<'a, T> {
    code: u8,
    message: &'a str,
    data: T,
}

/// What somebody else said, as receivers see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Said<'a> {
    pub from_user: &'a str,
    pub message: &'a str,
}

/// The answer to a sign in, real or forged.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Account<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub uniq_id: &'a str,
}

/// Encodes a message for a client.
pub(super) fn reply(cmd: i64, code: u8, message: &str, data: impl Serialize) -> Bytes {
    let reply = Reply { cmd, data: Body { code, message, data } };
    let text = serde_json::to_vec(&reply);
    text.expect("strings, numbers and maps with string keys always encode").into()
}

/// The answer of the gateway to a query, as the client gets it.
pub(super) fn answer(query: Cmd, body: &[u8]) -> Result<Value, DecodeError> {
    Ok(match query {
        Cmd::UniqIdList => json!({ "uniqIds": pb::UniqIdListResp::decode(body)?.uniq_ids }),
        Cmd::UniqIdCount => json!({ "count": pb::UniqIdCountResp::decode(body)?.count }),
        Cmd::CustomerIdList => {
            json!({ "customerIds": pb::CustomerIdListResp::decode(body)?.customer_ids })
        }
        Cmd::CustomerIdCount => json!({ "count": pb::CustomerIdCountResp::decode(body)?.count }),
        Cmd::TopicList => json!({ "topics": pb::TopicListResp::decode(body)?.topics }),
        Cmd::TopicCount => json!({ "count": pb::TopicCountResp::decode(body)?.count }),
        Cmd::CheckOnline => json!({ "uniqIds": pb::CheckOnlineResp::decode(body)?.uniq_ids }),
        Cmd::TopicUniqIdCount => json!(pb::TopicUniqIdCountResp::decode(body)?.items),
        Cmd::TopicCustomerIdCount => json!(pb::TopicCustomerIdCountResp::decode(body)?.items),
        Cmd::TopicUniqIdList => {
            let items = pb::TopicUniqIdListResp::decode(body)?.items;
            table(items, |item| json!(item.uniq_ids))
        }
        Cmd::TopicCustomerIdList => {
            let items = pb::TopicCustomerIdListResp::decode(body)?.items;
            table(items, |item| json!(item.customer_ids))
        }
        Cmd::TopicCustomerIdToUniqIdsList => {
            let items = pb::TopicCustomerIdToUniqIdsListResp::decode(body)?.items;
            table(items, |topic| table(topic.items, |customer| json!(customer.uniq_ids)))
        }
        Cmd::ConnInfo => {
            let items = pb::ConnInfoResp::decode(body)?.items;
            json!({ "connInfo": table(items, connection) })
        }
        Cmd::ConnInfoByCustomerId => {
            let items = pb::ConnInfoByCustomerIdResp::decode(body)?.items;
            json!({ "connInfo": table(items, connections_of_customer) })
        }
        Cmd::Metrics => table(pb::MetricsResp::decode(body)?.items, metric),
        Cmd::Limit => {
            let limit = pb::LimitResp::decode(body)?;
            json!({ "onOpen": limit.on_open, "onMessage": limit.on_message })
        }
        // No other command is sent as a query.
        _ => Value::Null,
    })
}

fn table<K: ToString, V>(
    items: impl IntoIterator<Item = (K, V)>,
    value: impl Fn(V) -> Value,
) -> Value {
    let items = items.into_iter().map(|(key, item)| (key.to_string(), value(item)));
    json!(items.collect::<BTreeMap<_, _>>())
}

fn connection(item: pb::ConnInfoRespItem) -> Value {
    json!({ "session": item.session, "customerId": item.customer_id, "topics": item.topics })
}

fn connections_of_customer(list: pb::ConnInfoByCustomerIdRespItems) -> Value {
    let connections = list.items.into_iter().map(
        |item| json!({ "session": item.session, "uniqId": item.uniq_id, "topics": item.topics }),
    );
    Value::Array(connections.collect())
}

fn metric(item: pb::MetricsRespItem) -> Value {
    json!({
        "item": item.item, "count": item.count, "meanRate": item.mean_rate,
        "rate1": item.rate1, "rate5": item.rate5, "rate15": item.rate15,
    })
}
