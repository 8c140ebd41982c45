//! What backends are told about connections (xxim sections 2.7 and 6.3).
//!
//! Invariant: seeds of keys are never named; tokens and handshake headers only where the
//! configuration says so. Costs: O(connections named).

use std::collections::HashSet;

use crate::protocols::xxim::letters::{PushResult, PushedConn};
use crate::protocols::xxim::wire::proto::{CommonResp, ConnParam, GetUserConnResp, SendMsgResp};

/// What is told of each connection beside who it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Telling {
    /// Tokens and handshake headers.
    pub secrets: bool,
    /// The address of this node; empty: it is not known.
    pub pod_ip: String,
}

/// After a push. `users` are those that were asked for: who has no connection has failed.
pub(super) fn sent(pushed: PushResult, users: &[Box<str>], telling: &Telling) -> SendMsgResp {
    let reached: HashSet<&str> =
        pushed.success.iter().map(|conn| &*conn.identity.user_id).collect();
    let mut told = reached.clone();
    let mut failed: Vec<ConnParam> = Vec::new();
    for conn in &pushed.failed {
        if told.insert(&conn.identity.user_id) {
            failed.push(param(conn, telling));
        }
    }
    for user in users {
        if told.insert(user) {
            failed.push(ConnParam { user_id: user.to_string(), ..ConnParam::default() });
        }
    }
    SendMsgResp {
        common_resp: Some(CommonResp { code: 0, msg: Some("ok".into()), ..Default::default() }),
        success_conn_params: pushed.success.iter().map(|conn| param(conn, telling)).collect(),
        failed_conn_params: failed,
    }
}

/// The answers of all nodes as one: a user who was reached on one has not failed on the others.
pub(super) fn sent_everywhere(mut all: SendMsgResp, parts: Vec<SendMsgResp>) -> SendMsgResp {
    if parts.is_empty() {
        return all;
    }
    for part in parts {
        all.success_conn_params.extend(part.success_conn_params);
        all.failed_conn_params.extend(part.failed_conn_params);
    }
    let reached = all.success_conn_params.iter().map(|conn| conn.user_id.as_str());
    let mut told: HashSet<String> = reached.map(str::to_owned).collect();
    // An entry that names a connection says more than one of a node that knows none.
    all.failed_conn_params.sort_by_key(|conn| conn.device_id.is_empty());
    all.failed_conn_params.retain(|conn| told.insert(conn.user_id.clone()));
    all
}

/// The answer to GetUserConn, the only one with the time of accepting.
pub(super) fn found(pushed: PushResult, telling: &Telling) -> GetUserConnResp {
    let timed = |conn: &PushedConn| ConnParam {
        timestamp: conn.identity.accepted_unix_ms,
        ..param(conn, telling)
    };
    let conn_params = pushed.success.iter().map(timed).collect();
    GetUserConnResp { common_resp: None, conn_params }
}

fn param(conn: &PushedConn, telling: &Telling) -> ConnParam {
    let identity = &conn.identity;
    let mut param = ConnParam {
        user_id: identity.user_id.clone(),
        device_id: identity.device_id.clone(),
        platform: identity.platform.clone(),
        ips: identity.ip.clone(),
        network_used: identity.network_used.clone(),
        pod_ip: telling.pod_ip.clone(),
        ..ConnParam::default()
    };
    if telling.secrets {
        param.token.clone_from(&identity.token);
        param.headers = identity.headers.iter().cloned().collect();
    }
    param
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::ConnId;
    use crate::protocols::xxim::wire::Identity;

    fn conn(user: &str, device: &str) -> PushedConn {
        let identity = Identity {
            user_id: user.into(),
            device_id: device.into(),
            token: "secret".into(),
            accepted_unix_ms: 7,
            headers: Arc::new([("cookie".into(), "secret".into())]),
            ..Identity::default()
        };
        PushedConn { conn: ConnId::new(0, 0, 1), identity: Arc::new(identity) }
    }

    #[test]
    fn a_user_failed_if_no_connection_was_reached() {
        let pushed = PushResult {
            success: vec![conn("a", "1")],
            failed: vec![conn("a", "2"), conn("b", "1"), conn("b", "2")],
        };
        let users = ["a", "b", "c", "c"].map(Box::from);
        let answer = sent(pushed, &users, &Telling::default());
        assert_eq!(answer.success_conn_params.len(), 1);
        let failed: Vec<_> =
            answer.failed_conn_params.iter().map(|p| (&*p.user_id, &*p.device_id)).collect();
        assert_eq!(failed, [("b", "1"), ("c", "")]);
        assert_eq!(answer.common_resp.expect("always").msg.as_deref(), Some("ok"));
    }

    #[test]
    fn a_user_who_was_reached_on_one_node_has_not_failed_on_another() {
        let users = ["a", "b", "c"].map(Box::from);
        let here = PushResult { success: vec![conn("a", "1")], failed: Vec::new() };
        let there = PushResult { success: vec![conn("b", "2")], failed: vec![conn("c", "3")] };
        let [here, there] = [here, there].map(|pushed| sent(pushed, &users, &Telling::default()));
        let all = sent_everywhere(here, vec![there]);
        let names = |conns: &[ConnParam]| -> Vec<String> {
            conns.iter().map(|conn| format!("{}{}", conn.user_id, conn.device_id)).collect()
        };
        assert_eq!(names(&all.success_conn_params), ["a1", "b2"]);
        assert_eq!(names(&all.failed_conn_params), ["c3"]);
    }

    #[test]
    fn secrets_are_named_only_if_wanted_and_seeds_never() {
        let pushed = || PushResult { success: vec![conn("a", "1")], failed: Vec::new() };
        let telling = Telling { secrets: false, pod_ip: "192.0.2.1".into() };
        let plain = found(pushed(), &telling).conn_params.remove(0);
        assert_eq!((&*plain.token, plain.headers.len(), plain.timestamp), ("", 0, 7));
        assert_eq!(plain.pod_ip, "192.0.2.1");
        let telling = Telling { secrets: true, ..telling };
        let open = found(pushed(), &telling).conn_params.remove(0);
        assert_eq!((&*open.token, open.headers.len()), ("secret", 1));
        assert_eq!((open.aes_key, open.aes_iv), (None, None));
    }
}
