//! Who a client says it is, and what a verifier made of it; shared by the protocols in which
//! clients log in (xxim section 5.2, IM sections 8 and 10).

use std::fmt;

use bytes::Bytes;

/// A login to be verified.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// What the client speaks, for the log.
    pub protocol: &'static str,
    pub question: Question,
    pub user: String,
    /// A secret: never logged.
    pub token: String,
    /// Address of the client, without port.
    pub ip: String,
    /// Further facts by the names that the protocol's hooks give them; empty where the protocol has
    /// none.
    pub platform: String,
    pub device: String,
    pub network: String,
    /// Headers of the client's handshake, names as they came.
    pub headers: Vec<(String, String)>,
}

/// What a verifier is asked over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Question {
    /// A BeforeConnectReq, posted to url/beforeConnect (xxim section 5.2).
    #[default]
    BeforeConnect,
    /// JSON with token, user and address, posted to the URL itself (IM section 10).
    Json,
}

/// What the verifier says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client is who it says.
    Accepted { profile: Option<Profile> },
    /// It is not, or may not enter; `message` is for the client, `code` is the verifier's own.
    Refused { code: i32, message: String },
    /// Nobody could say: the verifier did not answer, or made no sense. The text is for the log.
    Unavailable(String),
}

/// What a backend says about a request of a client that has logged in (xxim section 4.1, step 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    Granted,
    /// The request is answered with this code and message, and the connection stays.
    Refused {
        code: i32,
        data: Bytes,
    },
    /// The connection is closed with this text.
    Banned(String),
    /// Nobody could say.
    Unavailable,
}

/// What a verifier may tell about a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub level: u32,
    pub nickname: String,
    pub tags: Vec<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, user {:?}, from {})", self.protocol, self.user, self.ip)
    }
}
