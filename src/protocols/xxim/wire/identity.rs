//! Who a client is, as backends get to know it (specification sections 2.2, 2.7 and 4.4).
//!
//! Invariants: made anew whenever one of its values changes and shared by the requests that were
//! accepted meanwhile, so that a request carries what was true when it came. Costs: one allocation
//! per set-params or set-user, none per request.

use std::fmt;
use std::sync::Arc;

/// The parameters of a connection. Texts are empty until the client has named them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Empty before login; so is the token.
    pub user_id: String,
    pub token: String,
    pub platform: String,
    /// What the connection is known by besides user and platform: the package id of version 2
    /// (its device id if that is empty), the device id of version 1 (section 2.9).
    pub device_id: String,
    /// Version 2 only.
    pub package_id: String,
    pub device_model: String,
    pub os_version: String,
    pub app_version: String,
    pub language: String,
    pub network_used: String,
    /// Of the client, as far as trusted proxies tell it (section 1.7).
    pub ip: String,
    /// `User-Agent` of the handshake.
    pub user_agent: String,
    /// The first value of each header of the handshake, ascending by name.
    pub headers: Arc<[(String, String)]>,
    /// When the connection was accepted, Unix milliseconds.
    pub accepted_unix_ms: i64,
}

impl Identity {
    /// Whether set-user has succeeded.
    pub fn logged_in(&self) -> bool {
        !self.user_id.is_empty()
    }
}

/// Without the token and the headers, which may carry secrets.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("user_id", &self.user_id)
            .field("platform", &self.platform)
            .field("device_id", &self.device_id)
            .field("ip", &self.ip)
            .finish_non_exhaustive()
    }
}
