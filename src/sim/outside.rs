//! What is outside of the shards in the simulated world: open callbacks, verifiers of logins, keys,
//! hooks. They answer after some time, well or not.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Weather, World};
use crate::hub::login;
use crate::lists::letters::{Mail, SidecarRequest};
use crate::protocols::connmix::letters as connmix;
use crate::protocols::netsvr::letters as netsvr;
use crate::protocols::netsvr::wire::Verdict;
use crate::protocols::xxim::letters as xxim;
use crate::protocols::xxim::wire::cipher::Seeds;

/// Tokens of logins that are refused, and that nobody can verify; all others are good.
pub const REFUSED: &str = "refused";
pub const UNAVAILABLE: &str = "unavailable";
/// Begins what is a "ciphertext" of the bytes behind it; what begins otherwise is none.
pub const SEALED: u8 = 0x5e;

/// The seed in a "ciphertext". `None`: it is none.
fn open(sealed: Option<Bytes>) -> Option<Option<Zeroizing<Vec<u8>>>> {
    match sealed.as_deref() {
        None => Some(None),
        Some([SEALED, seed @ ..]) => Some(Some(Zeroizing::new(seed.to_vec()))),
        Some(_) => None,
    }
}

impl World {
    /// Answers what is due.
    pub(super) fn answer_callbacks(&mut self) {
        let due = |(due_ms, _): &mut (u64, SidecarRequest)| *due_ms <= self.now.ms;
        for (_, request) in self.callbacks.extract_if(.., due).collect::<Vec<_>>() {
            let answer = match request {
                SidecarRequest::Verify { conn, number, login } => {
                    let verdict = verified(&login);
                    Some((conn.shard(), Mail::Verified { conn, number, verdict }))
                }
                SidecarRequest::Netsvr(request) => self.answer_netsvr(request),
                SidecarRequest::Xxim(request) => self.answer_xxim(request),
                SidecarRequest::Connmix(request) => Some(answer_connmix(request)),
                SidecarRequest::Stop => None,
            };
            if let Some((shard, mail)) = answer {
                self.cells[shard as usize].mailbox.push_back(mail);
            }
        }
    }

    fn answer_netsvr(&mut self, request: netsvr::ServiceRequest) -> Option<(u8, Mail)> {
        use netsvr::{Letter, ServiceRequest};
        let (shard, letter) = match request {
            ServiceRequest::OnOpen { conn, .. } => {
                (conn.shard(), Letter::Opened { conn, verdict: self.verdict() })
            }
            ServiceRequest::OnClose { shard, number, .. } => {
                (shard, Letter::ClosedCallback { number })
            }
            ServiceRequest::Make(_) => return None,
        };
        Some((shard, Mail::Netsvr(letter)))
    }

    fn answer_xxim(&mut self, request: xxim::ServiceRequest) -> Option<(u8, Mail)> {
        use xxim::{Letter, ServiceRequest};
        let (conn, letter) = match request {
            ServiceRequest::Check { conn, number, .. } => {
                let permission = match self.rng.u8(..8) {
                    0 => login::Permission::Unavailable,
                    _ => login::Permission::Granted,
                };
                (conn, Letter::Checked { conn, number, permission })
            }
            ServiceRequest::Unwrap { conn, number, key, iv } => {
                let seeds = open(key).zip(open(iv));
                let seeds = seeds.map(|(key, iv)| Box::new(Seeds { key, iv }));
                (conn, Letter::Unwrapped { conn, number, seeds })
            }
            ServiceRequest::Upstream { .. }
            | ServiceRequest::CancelUpstream { .. }
            | ServiceRequest::Hook { .. } => return None,
        };
        Some((conn.shard(), Mail::Xxim(letter)))
    }

    fn verdict(&mut self) -> Option<Box<Verdict>> {
        let throw = self.rng.u8(..100);
        let Weather { callback_fails_percent: fails, callback_denies_percent: denies, .. } =
            self.weather;
        if throw < fails {
            return None;
        }
        let allow = throw - fails >= denies;
        Some(Box::new(Verdict { allow, ..(self.weather.callback_verdict)() }))
    }
}

fn verified(login: &login::Login) -> login::Verdict {
    match &*login.token {
        REFUSED => login::Verdict::Refused { code: 4, message: REFUSED.into() },
        UNAVAILABLE => login::Verdict::Unavailable(UNAVAILABLE.into()),
        _ => login::Verdict::Accepted { profile: None },
    }
}

fn answer_connmix(request: connmix::ServiceRequest) -> (u8, Mail) {
    use connmix::{Letter, ServiceRequest};
    let (shard, letter) = match request {
        ServiceRequest::HttpCall { conn, .. } => {
            (conn.shard(), Letter::HttpCalled { conn, answer: None })
        }
        ServiceRequest::Metrics { shard, number } => {
            (shard, Letter::Rendered { number, text: String::from("ringway_up 1\n") })
        }
    };
    (shard, Mail::Connmix(letter))
}
