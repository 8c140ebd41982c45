//! IM clients, sans-io: what each frame of a client comes to (IM sections 6, 8 to 10 and 12).
//!
//! A [`Session`] is the state of one connection. The shard cuts the stream into frames
//! ([`crate::protocols::im::wire::Decoder`]), hands each to [`Session::frame`] and carries out the
//! [`Step`] that comes back. The order of the checks is that of section 12; the token buckets come
//! between its steps 6 and 7, so that what is too much costs no inflating.
//!
//! Invariants: no response to a CMS unless the configuration asks for it; in the state NEW every
//! status but OK is followed by the end; nothing of a client is believed about who it is.
//! Costs: no allocation for a PING; a CMS is decoded once into owned fields.

mod errors;
mod login;

use std::time::Duration;

use prost::Message;

use self::errors::Errors;
pub use self::login::{Entered, Who};
use crate::hub::Hub;
use crate::hub::limits::{Bucket, BucketRules};
use crate::hub::push::CloseReason;
use crate::hub::rooms::{room_of, topic_of};
use crate::protocols::im::config::{GzipServer, Im};
use crate::protocols::im::wire::proto::{
    ChatroomRequest, CrMessage, CrMessageType, cr_message::UserInfo,
};
use crate::protocols::im::wire::{
    Answer, ClientCommand, Compression, Decoder, Frame, Gzip, GzipError, Header, LenMode, Refusal,
    Rules, Status, VERSION_MAX, Wire,
};

/// PING of one connection that take nothing from the bucket of requests (section 12).
const PINGS: BucketRules = BucketRules { rate: 2, burst: 2 };
/// Time over which error responses are counted (section 12).
const ERRORS_WITHIN: Duration = Duration::from_secs(60);

/// What is known about a connection (section 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing but LOGIN is listened to.
    #[default]
    New,
    /// May join rooms and listen.
    Guest,
    /// May speak, too.
    User,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Session {
    pub decoder: Decoder,
    state: State,
    /// That of the first LOGIN.
    version: u8,
    mode: LenMode,
    websocket: bool,
    /// It has sent a frame with the gzip bit.
    gzip: bool,
    /// Empty for guests.
    user: Box<str>,
    profile: Option<Box<UserInfo>>,
    /// `seq` of the LOGIN that is being verified.
    verifying: Option<u32>,
    errors: Errors,
    messages: Bucket,
    requests: Bucket,
    pings: Bucket,
}

/// What a session must know of the world around it.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    pub rules: &'a Im,
    pub hub: &'a Hub,
    pub slot: u32,
    pub now_ms: u64,
}

/// Why the gateway ends a connection; over WebSocket the client is told (section 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    NotLogin,
    LoginTimeout,
    Denied,
    TooLarge,
    Protocol,
    TooManyErrors,
    Logout,
    Idle,
    Stuck,
    Kicked,
}

impl End {
    /// Code and text of the close frame.
    pub fn reason(self) -> CloseReason {
        let (code, text) = match self {
            End::NotLogin => (1008, "the first frame is not LOGIN"),
            End::LoginTimeout => (1008, "no LOGIN in time"),
            End::Denied => (1008, "login failed"),
            End::TooLarge => (1009, "too large"),
            End::Protocol => (1002, "protocol error"),
            End::TooManyErrors => (1002, "too many errors"),
            End::Logout => (1000, "logout"),
            End::Idle => (1001, "idle"),
            End::Stuck => (1001, "a frame takes too long"),
            End::Kicked => (4001, "kicked"),
        };
        CloseReason::new(code, text)
    }
}

/// What the shard is to do about a frame.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Ignore,
    /// Send the response, if there is one, then end the connection, if there is a reason.
    Answer(Option<Answer>, Option<End>),
    /// The same; a CMS was dropped because of this.
    Dropped(Status, Option<Answer>, Option<End>),
    /// Register the connection, then send the response.
    Guest(Answer),
    /// Ask the verifier; nothing is read until [`Session::verified`].
    Verify(Who),
    /// Subscribe the connection to the topic of a room, then send the response.
    Join(Answer, String),
    /// Unsubscribe it, then send the response.
    Leave(Answer, String),
    /// Distribute the message; it lacks only the time.
    Say(Say),
}

/// A CMS that passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Say {
    pub seq: u32,
    pub topic: String,
    pub message: CrMessage,
}

impl Session {
    /// A connection that was just made.
    pub fn new(websocket: bool) -> Session {
        Session { websocket, ..Session::default() }
    }

    /// What is known about it.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its user; empty for guests.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What the decoder must know.
    pub fn decoding(&self, rules: &Im) -> Rules {
        Rules {
            len: rules.len_mode,
            order: rules.byte_order,
            login: rules.login_fields,
            body_bytes_max: rules.max_body,
            plain_bytes_max: rules.max_plain,
            versions: rules.versions,
            only: (self.state == State::New).then_some(rules.commands.login),
        }
    }

    /// How frames to the client look.
    pub fn wire(&self, rules: &Im) -> Wire {
        let gzip = match rules.gzip_server {
            GzipServer::Always => true,
            GzipServer::Negotiated => self.gzip,
            GzipServer::Never => false,
        };
        Wire {
            version: self.version,
            mode: self.mode,
            order: rules.byte_order,
            gzip,
            websocket: self.websocket,
        }
    }

    /// A frame whose header passed.
    pub fn frame(&mut self, frame: Frame<'_>, around: &Around<'_>, gzip: &mut Gzip) -> Step {
        let (header, rules) = (frame.header, around.rules);
        self.note(header, frame.mode);
        let request = rules.commands.request(header.command);
        match request {
            ClientCommand::Nothing => return Step::Ignore,
            ClientCommand::Unknown => return self.refuse(header, Status::UnknownCommand, around),
            _ if !self.passes(request, around) => {
                return self.refuse(header, Status::RateLimited, around);
            }
            _ => {}
        }
        let takes_body = !matches!(request, ClientCommand::Logout | ClientCommand::Ping);
        let body = match header.compression() {
            Compression::Reserved => Err(GzipError::Corrupt),
            Compression::Gzip if takes_body && !frame.body.is_empty() => {
                gzip.inflate(frame.body, rules.max_plain as usize)
            }
            _ => Ok(frame.body),
        };
        let body = match body {
            Ok(body) => body,
            Err(GzipError::Corrupt) => return self.refuse(header, Status::BadCompression, around),
            Err(GzipError::TooLarge) => {
                return self.refuse_and_end(header, Status::TooLarge, End::TooLarge, rules);
            }
        };
        match request {
            ClientCommand::Login => self.login(header, body, around),
            ClientCommand::Logout => Step::Answer(None, Some(End::Logout)),
            ClientCommand::Ping => {
                let command = rules.commands.pong;
                Step::Answer(Some(Answer { seq: header.seq, command, status: 0 }), None)
            }
            ClientCommand::JoinCr | ClientCommand::LeaveCr => {
                self.room(header, request, body, around)
            }
            ClientCommand::Cms => self.cms(header, body, around),
            ClientCommand::Nothing | ClientCommand::Unknown => Step::Ignore,
        }
    }

    /// A header that did not pass (section 12, steps 1 to 4); `mode` as far as it is known.
    pub fn refused(&mut self, refusal: Refusal, mode: LenMode, rules: &Im) -> Step {
        let (header, status, end) = match refusal {
            Refusal::NotLogin => return Step::Answer(None, Some(End::NotLogin)),
            Refusal::Version(header) => (header, Status::BadVersion, End::Protocol),
            Refusal::Flow(header) => (header, Status::BadFlow, End::Protocol),
            Refusal::Len(header) => (header, Status::BadFrame, End::Protocol),
            Refusal::TooLarge(header) => (header, Status::TooLarge, End::TooLarge),
        };
        self.note(header, mode);
        if status == Status::BadVersion {
            // There, and only there, the server tells its own highest version (section 3).
            self.version = VERSION_MAX;
        }
        self.refuse_and_end(header, status, end, rules)
    }

    /// A CMS that passed here was refused by the shard.
    pub fn drop_said(&mut self, seq: u32, status: Status, around: &Around<'_>) -> Step {
        let command = around.rules.commands.cms;
        let header = Header { len: 0, seq, command, flag: 0, status: 0 };
        self.refuse(header, status, around)
    }

    /// A JOIN_CR that passed here was refused by the shard.
    pub fn drop_join(&mut self, seq: u32, status: Status, around: &Around<'_>) -> Step {
        let command = around.rules.commands.join_cr;
        let header = Header { len: 0, seq, command, flag: 0, status: 0 };
        self.refuse(header, status, around)
    }

    /// What the header tells about the client.
    fn note(&mut self, header: Header, mode: LenMode) {
        self.mode = mode;
        self.gzip |= header.compression() == Compression::Gzip;
        if self.state == State::New {
            self.version = header.version();
        }
    }

    /// Whether the bucket of a request has a token.
    fn passes(&mut self, request: ClientCommand, around: &Around<'_>) -> bool {
        let Around { rules, now_ms, .. } = *around;
        match request {
            ClientCommand::Cms => {
                let rules = BucketRules { rate: rules.cms_rate, burst: rules.cms_burst };
                return self.messages.take(now_ms, rules);
            }
            ClientCommand::Logout => return true,
            ClientCommand::Ping if self.pings.take(now_ms, PINGS) => return true,
            _ => {}
        }
        let rules = BucketRules { rate: rules.request_rate, burst: rules.request_burst };
        self.requests.take(now_ms, rules)
    }

    /// JOIN_CR and LEAVE_CR.
    fn room(
        &mut self,
        header: Header,
        request: ClientCommand,
        body: &[u8],
        around: &Around<'_>,
    ) -> Step {
        let Ok(asked) = ChatroomRequest::decode(body) else {
            return self.refuse(header, Status::BadBody, around);
        };
        if !is_room(&asked.chatroom_id, around.rules) {
            return self.refuse(header, Status::RoomInvalid, around);
        }
        let topic = topic_of(&asked.chatroom_id);
        let answer = ok(header);
        if request == ClientCommand::LeaveCr {
            return Step::Leave(answer, topic);
        }
        if around.hub.is_in(around.slot, &topic) {
            return Step::Answer(Some(answer), None);
        }
        let topics = around.hub.topics_of(around.slot);
        let rooms = topics.filter(|topic| room_of(topic).is_some()).count();
        if rooms >= around.rules.max_rooms as usize {
            return self.refuse(header, Status::TooManyRooms, around);
        }
        Step::Join(answer, topic)
    }

    fn cms(&mut self, header: Header, body: &[u8], around: &Around<'_>) -> Step {
        let Ok(mut message) = CrMessage::decode(body) else {
            return self.refuse(header, Status::BadBody, around);
        };
        let rules = around.rules;
        let status = if self.state != State::User {
            Status::GuestForbidden
        } else if message.message_type == CrMessageType::Notify as u32
            || message.message_content.len() > rules.max_content as usize
        {
            Status::BadBody
        } else if !is_room(&message.to, rules) {
            Status::RoomInvalid
        } else {
            let topic = topic_of(&message.to);
            if around.hub.is_in(around.slot, &topic) {
                message.from = self.user.to_string();
                if let Some(profile) = &self.profile {
                    message.user_info = Some((**profile).clone());
                }
                return Step::Say(Say { seq: header.seq, topic, message });
            }
            Status::NotInRoom
        };
        self.refuse(header, status, around)
    }

    /// An error after which the connection stays, unless there were too many or it is NEW.
    fn refuse(&mut self, header: Header, status: Status, around: &Around<'_>) -> Step {
        let Around { rules, now_ms, .. } = *around;
        let cms = header.command == rules.commands.cms;
        let counts = !cms || status.is_protocol();
        let within_ms = ERRORS_WITHIN.as_millis() as u64;
        let too_many = counts && self.errors.add(now_ms, within_ms, rules.max_errors as usize);
        let end = match (self.state, status) {
            (State::New, Status::AuthFailed | Status::Busy) => Some(End::Denied),
            (State::New, _) => Some(End::Protocol),
            _ => too_many.then_some(End::TooManyErrors),
        };
        self.answered(header, status, end, rules)
    }

    fn refuse_and_end(&self, header: Header, status: Status, end: End, rules: &Im) -> Step {
        self.answered(header, status, Some(end), rules)
    }

    /// An error in the words of the command: to a CMS there is no response (section 10).
    fn answered(&self, header: Header, status: Status, end: Option<End>, rules: &Im) -> Step {
        let status_number = rules.statuses.number(status);
        let answer = Answer { seq: header.seq, command: header.command, status: status_number };
        if header.command != rules.commands.cms {
            return Step::Answer(Some(answer), end);
        }
        Step::Dropped(status, rules.cms_error_reply.then_some(answer), end)
    }
}

/// The response to a request that succeeded.
fn ok(header: Header) -> Answer {
    Answer { seq: header.seq, command: header.command, status: 0 }
}

/// Whether a room may have this name.
fn is_room(name: &str, rules: &Im) -> bool {
    (1..=rules.max_room_id as usize).contains(&name.len())
}
