//! Verifiers of logins.

use crate::hub::login::{Login, Verdict};

/// The verifiers of the process, by protocol.
#[derive(Debug)]
pub(super) struct Logins {}

impl Logins {
    /// Lets everybody in.
    pub(super) fn new() -> Logins {
        Logins {}
    }

    /// Asks the verifier of the login's protocol.
    pub(super) async fn verify(&self, _login: &Login) -> Verdict {
        Verdict::Accepted { profile: None }
    }
}
