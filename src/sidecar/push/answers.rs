//! What backends are told about connections (xxim sections 2.7 and 6.3).
//!
//! Invariant: seeds of keys are never named; tokens and handshake headers only where the
//! configuration says so. Costs: O(connections named).

use std::collections::HashSet;

use crate::shard::mailbox::{XximConn, XximPushed};
use crate::wire::xxim::proto::{CommonResp, ConnParam, GetUserConnResp, SendMsgResp};

/// After a push. `users` are those that were asked for: who has no connection has failed.
pub(super) fn sent(pushed: XximPushed, users: &[Box<str>], expose: bool) -> SendMsgResp {
    let reached: HashSet<&str> =
        pushed.success.iter().map(|conn| &*conn.identity.user_id).collect();
    let mut told = reached.clone();
    let mut failed: Vec<ConnParam> = Vec::new();
    for conn in &pushed.failed {
        if told.insert(&conn.identity.user_id) {
            failed.push(param(conn, expose));
        }
    }
    for user in users {
        if told.insert(user) {
            failed.push(ConnParam { user_id: user.to_string(), ..ConnParam::default() });
        }
    }
    SendMsgResp {
        common_resp: Some(CommonResp { code: 0, msg: Some("ok".into()), ..Default::default() }),
        success_conn_params: pushed.success.iter().map(|conn| param(conn, expose)).collect(),
        failed_conn_params: failed,
    }
}

/// The answer to GetUserConn, the only one with the time of accepting.
pub(super) fn found(pushed: XximPushed, expose: bool) -> GetUserConnResp {
    let timed = |conn: &XximConn| ConnParam {
        timestamp: conn.identity.accepted_unix_ms,
        ..param(conn, expose)
    };
    let conn_params = pushed.success.iter().map(timed).collect();
    GetUserConnResp { common_resp: None, conn_params }
}

fn param(conn: &XximConn, expose: bool) -> ConnParam {
    let identity = &conn.identity;
    let mut param = ConnParam {
        user_id: identity.user_id.clone(),
        device_id: identity.device_id.clone(),
        platform: identity.platform.clone(),
        ips: identity.ip.clone(),
        network_used: identity.network_used.clone(),
        ..ConnParam::default()
    };
    if expose {
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
    use crate::wire::xxim::Identity;

    fn conn(user: &str, device: &str) -> XximConn {
        let identity = Identity {
            user_id: user.into(),
            device_id: device.into(),
            token: "secret".into(),
            accepted_unix_ms: 7,
            headers: Arc::new([("cookie".into(), "secret".into())]),
            ..Identity::default()
        };
        XximConn { conn: ConnId::new(0, 0, 1), identity: Arc::new(identity) }
    }

    #[test]
    fn a_user_failed_if_no_connection_was_reached() {
        let pushed = XximPushed {
            success: vec![conn("a", "1")],
            failed: vec![conn("a", "2"), conn("b", "1"), conn("b", "2")],
        };
        let users = ["a", "b", "c", "c"].map(Box::from);
        let answer = sent(pushed, &users, false);
        assert_eq!(answer.success_conn_params.len(), 1);
        let failed: Vec<_> =
            answer.failed_conn_params.iter().map(|p| (&*p.user_id, &*p.device_id)).collect();
        assert_eq!(failed, [("b", "1"), ("c", "")]);
        assert_eq!(answer.common_resp.expect("always").msg.as_deref(), Some("ok"));
    }

    #[test]
    fn secrets_are_named_only_if_wanted_and_seeds_never() {
        let pushed = || XximPushed { success: vec![conn("a", "1")], failed: Vec::new() };
        let plain = found(pushed(), false).conn_params.remove(0);
        assert_eq!((&*plain.token, plain.headers.len(), plain.timestamp), ("", 0, 7));
        let open = found(pushed(), true).conn_params.remove(0);
        assert_eq!((&*open.token, open.headers.len()), ("secret", 1));
        assert_eq!((open.aes_key, open.aes_iv), (None, None));
    }
}
