//! What is outside of the shards in the simulated world: open callbacks, verifiers of logins, keys,
//! hooks. They answer after some time, well or not.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Weather, World};
use crate::hub::login;
use crate::lists::letters::{ConnmixLetter, Mail, NetsvrLetter, Request, XximLetter};
use crate::protocols::netsvr::wire::Verdict;
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
        let due = |(due_ms, _): &mut (u64, Request)| *due_ms <= self.now.ms;
        for (_, request) in self.callbacks.extract_if(.., due).collect::<Vec<_>>() {
            match request {
                Request::OnOpen { conn, .. } => {
                    let verdict = self.verdict();
                    let mail = Mail::Netsvr(NetsvrLetter::Opened { conn, verdict });
                    self.cells[conn.shard() as usize].mailbox.push_back(mail);
                }
                Request::OnClose { shard, number, .. } => {
                    let mail = Mail::Netsvr(NetsvrLetter::ClosedCallback { number });
                    self.cells[shard as usize].mailbox.push_back(mail);
                }
                Request::Verify { conn, number, login } => {
                    let verdict = match &*login.token {
                        REFUSED => login::Verdict::Refused { code: 4, message: REFUSED.into() },
                        UNAVAILABLE => login::Verdict::Unavailable(UNAVAILABLE.into()),
                        _ => login::Verdict::Accepted { profile: None },
                    };
                    let mail = Mail::Verified { conn, number, verdict };
                    self.cells[conn.shard() as usize].mailbox.push_back(mail);
                }
                Request::Check { conn, number, .. } => {
                    let permission = match self.rng.u8(..8) {
                        0 => login::Permission::Unavailable,
                        _ => login::Permission::Granted,
                    };
                    let mail = Mail::Xxim(XximLetter::Checked { conn, number, permission });
                    self.cells[conn.shard() as usize].mailbox.push_back(mail);
                }
                Request::HttpCall { conn, .. } => {
                    let mail = Mail::Connmix(ConnmixLetter::HttpCalled { conn, answer: None });
                    self.cells[conn.shard() as usize].mailbox.push_back(mail);
                }
                Request::Unwrap { conn, number, key, iv } => {
                    let seeds = open(key).zip(open(iv));
                    let seeds = seeds.map(|(key, iv)| Box::new(Seeds { key, iv }));
                    let mail = Mail::Xxim(XximLetter::Unwrapped { conn, number, seeds });
                    self.cells[conn.shard() as usize].mailbox.push_back(mail);
                }
                Request::Upstream { .. }
                | Request::CancelUpstream { .. }
                | Request::Hook { .. }
                | Request::Make(_)
                | Request::Stop => {}
                Request::Metrics { shard, number } => {
                    let text = String::from("ringway_up 1\n");
                    let mail = Mail::Connmix(ConnmixLetter::Rendered { number, text });
                    self.cells[shard as usize].mailbox.push_back(mail);
                }
            }
        }
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
