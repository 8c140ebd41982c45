//! What files of the tests have in common, and what the one with every key says of the process.

use std::time::Duration;

use ringway::config::model::Admin;

/// Listeners that a configuration can not do without.
pub const LISTENERS: &str = r#"
[[listener]]
bind = "127.0.0.1:6060"
routes = [ { path = "/netsvr", protocol = "netsvr" } ]
[[listener]]
bind = "127.0.0.1:6061"
protocol = "netsvr-worker"
[[listener]]
bind = "127.0.0.1:6062"
protocol = "netsvr-task"
"#;

/// Its part about the admin server.
pub fn admin() -> Admin {
    Admin {
        bind: None,
        socket: Some("admin.sock".into()),
        connections_max: 16,
        request_timeout: Duration::from_secs(3),
    }
}
