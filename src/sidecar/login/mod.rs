//! Verifiers of logins: whether clients of xxim and IM are who they say (xxim section 5.2, IM
//! section 10).
//!
//! Invariants: a verifier that fails lets nobody in; tokens and claims are neither logged nor
//! answered. Costs: `static` compares one token, `jwt` checks one signature (RS256 and ES256: some
//! 100 us), the others are a call of a backend.

mod calls;
mod jwt;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use tonic::transport::Channel;

use self::jwt::Tokens;
use crate::config::model::{LoginSettings, Sidecar, Verifier};
use crate::hub::login::{Login, Question, Verdict};
use crate::outside::grpc;
use crate::outside::http_client::{self, HttpClient};
use crate::outside::secrets::same;
use crate::protocols::xxim::wire::code;
use crate::protocols::xxim::wire::text::AUTH_FAILED as REFUSED;

/// What a client is told whose token was good.
const EXPIRED: &str = "登录已过期";

/// The verifier of the process.
pub(super) struct Logins {
    way: Way,
    timeout: Duration,
    json_timeout: Duration,
}

enum Way {
    Open,
    Static(HashMap<String, Vec<String>>),
    Jwt(Box<Tokens>),
    Http(HttpClient, reqwest::Url),
    Grpc(Channel),
}

impl Logins {
    /// Fails if a key file can not be used, or if a URL is none. Needs the context of a runtime.
    pub(super) fn new(settings: &LoginSettings, sidecar: Sidecar) -> io::Result<Logins> {
        let way = match &settings.verifier {
            Verifier::Open => Way::Open,
            Verifier::Static(users) => {
                let mut table: HashMap<String, Vec<String>> = HashMap::new();
                for (user, token) in users {
                    table.entry(user.clone()).or_default().push(token.clone());
                }
                Way::Static(table)
            }
            Verifier::Jwt(jwt) => Way::Jwt(Box::new(Tokens::new(jwt)?)),
            Verifier::Http(url) => Way::Http(HttpClient::new(sidecar)?, http_client::url(url)?),
            Verifier::Grpc(url) => Way::Grpc(grpc::channel(url, settings.timeout)?),
        };
        Ok(Logins { way, timeout: settings.timeout, json_timeout: settings.json_timeout })
    }

    /// Asks the verifier.
    pub(super) async fn verify(&self, login: &Login) -> Verdict {
        match (&self.way, login.question) {
            (Way::Open, _) => Verdict::Accepted { profile: None },
            (Way::Static(table), _) => {
                let tokens = table.get(&login.user).map_or(&[][..], Vec::as_slice);
                match tokens.iter().fold(false, |found, token| found | same(token, &login.token)) {
                    true => Verdict::Accepted { profile: None },
                    false => refused(REFUSED),
                }
            }
            (Way::Jwt(tokens), _) => tokens.verify(login),
            (Way::Http(client, url), Question::Json) => {
                calls::json(client, url, login, self.json_timeout).await
            }
            (Way::Http(client, url), Question::BeforeConnect) => {
                calls::http(client, url, login, self.timeout).await
            }
            (Way::Grpc(channel), _) => calls::grpc(channel.clone(), login, self.timeout).await,
        }
    }
}

fn refused(message: &str) -> Verdict {
    Verdict::Refused { code: code::AUTH, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(logins: &Logins, user: &str, token: &str) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let login = Login { user: user.into(), token: token.into(), ..Login::default() };
        match runtime.block_on(logins.verify(&login)) {
            Verdict::Accepted { .. } => true,
            Verdict::Refused { code, message } => {
                assert_eq!((code, &*message), (4, REFUSED));
                false
            }
            Verdict::Unavailable(text) => panic!("{text}"),
        }
    }

    #[test]
    fn a_table_knows_users_by_their_tokens() {
        let pairs = [("ann", "one"), ("ann", "two"), ("bob", "three")];
        let pairs = pairs.map(|(user, token)| (user.to_owned(), token.to_owned()));
        let verifier = Verifier::Static(pairs.into());
        let logins = Logins::new(
            &LoginSettings { verifier, ..LoginSettings::default() },
            Sidecar::default(),
        );
        let logins = logins.expect("a table");
        assert!(ask(&logins, "ann", "one") && ask(&logins, "ann", "two"));
        assert!(ask(&logins, "bob", "three"));
        for (user, token) in [("bob", "one"), ("ann", "on"), ("ann", ""), ("eve", "one"), ("", "")]
        {
            assert!(!ask(&logins, user, token), "{user} {token}");
        }
    }

    #[test]
    fn open_lets_everybody_in() {
        let logins =
            Logins::new(&LoginSettings::default(), Sidecar::default()).expect("nothing to read");
        assert!(ask(&logins, "anybody", "anything"));
    }
}
