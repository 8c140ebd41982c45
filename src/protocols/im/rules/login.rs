//! LOGIN: as a guest, as a user, and from one to the other (IM section 8).

use super::{Around, Session, State, Step, ok};
use crate::hub::login::{Profile, Verdict};
use crate::protocols::im::wire::proto::{LoginRequest, cr_message::UserInfo};
use crate::protocols::im::wire::{Answer, Header, Status};

/// Who a client says it is. The token is a secret: never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Who {
    pub token: String,
    pub user: String,
}

impl std::fmt::Debug for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Who({:?})", self.user)
    }
}

/// What a verdict has come to.
#[derive(Debug, PartialEq)]
pub enum Entered {
    /// The session is that of a user; `first`: the connection is not registered yet.
    User { answer: Answer, first: bool },
    /// As [`Step`] says.
    No(Step),
}

impl Session {
    /// A LOGIN whose body was inflated.
    pub(super) fn login(&mut self, header: Header, body: &[u8], around: &Around<'_>) -> Step {
        if self.state == State::User {
            return self.refuse(header, Status::AlreadyLoggedIn, around);
        }
        if body.is_empty() {
            let first = self.state == State::New;
            self.state = State::Guest;
            let answer = ok(header);
            return if first { Step::Guest(answer) } else { Step::Answer(Some(answer), None) };
        }
        let Ok(LoginRequest { token, user_id: user }) = around.rules.login_fields.decode(body)
        else {
            return self.refuse(header, Status::BadBody, around);
        };
        let (token_max, user_max) = (around.rules.max_token, around.rules.max_user_id);
        let complete = (1..=token_max as usize).contains(&token.len())
            && (1..=user_max as usize).contains(&user.len());
        if !complete {
            return self.refuse(header, Status::AuthFailed, around);
        }
        self.verifying = Some(header.seq);
        Step::Verify(Who { token, user })
    }

    /// The verifier has decided about `user`.
    pub fn verified(&mut self, user: &str, verdict: Verdict, around: &Around<'_>) -> Entered {
        let Some(seq) = self.verifying.take() else { return Entered::No(Step::Ignore) };
        let command = around.rules.commands.login;
        let header = Header { len: 0, seq, command, flag: 0, status: 0 };
        let profile = match verdict {
            Verdict::Accepted { profile } => profile,
            Verdict::Refused { .. } => {
                return Entered::No(self.refuse(header, Status::AuthFailed, around));
            }
            Verdict::Unavailable(_) => {
                return Entered::No(self.refuse(header, Status::Busy, around));
            }
        };
        let first = self.state == State::New;
        self.state = State::User;
        self.user = user.into();
        self.profile = profile.map(|profile| Box::new(user_info(profile)));
        Entered::User { answer: ok(header), first }
    }
}

/// The profile as messages carry it. A verifier says nothing about the level in a room.
fn user_info(profile: Profile) -> UserInfo {
    let Profile { level, nickname, tags } = profile;
    UserInfo { level, room_level: 0, nickname, tag: tags }
}
