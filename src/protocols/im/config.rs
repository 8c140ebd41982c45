//! `[im]`: IM long connections (IM specification).

use std::time::Duration;

use crate::config::choice::{Choice, words};
use crate::config::error::{Complaint, ConfigError};
use crate::config::keys::{Key, Section, ValueType, choice, flag, text};
use crate::config::settings::Settings;
use crate::protocols::im::wire::{
    ByteOrder, Commands, LenMode, LenRule, LoginFields, Modes, Status, Statuses, Versions,
};

/// Bytes of the name of a queue topic (connmix section 3.1).
const QUEUE_TOPIC_BYTES_MAX: usize = 255;

/// The keys that are no plain limits.
const KEYS: &[Key] = &[
    choice::<LenChoice>(
        "im.len_mode",
        "\"body\"",
        "What `len` counts. body: the bytes of the body; rest: everything after `len`; frame: \
         header and body; auto: the first frame of a connection decides.",
    ),
    Key {
        kind: ValueType::Texts,
        allowed: "list of two or three of \"body\", \"rest\", \"frame\"",
        ..text(
            "im.len_auto",
            "[\"rest\", \"body\"]",
            "What `len` may count with `len_mode = \"auto\"`. A first frame that may be a guest's \
             by one and a user's by another is read by the one that stands first.",
        )
    },
    choice::<ByteOrder>(
        "im.byte_order",
        "\"big\"",
        "Which byte of `len` and `seq` comes first, on both ways. big: the highest.",
    ),
    Key { kind: ValueType::Numbers, ..text("im.versions", "[0, 1]", "") },
    choice::<GzipServer>(
        "im.gzip_server",
        "\"negotiated\"",
        "Whether notifications are compressed. negotiated: for clients that have sent a frame with \
         the gzip bit.",
    ),
    off("im.cms_error_reply", "Answer a CMS that is dropped with its status."),
    off("im.kick_notify", "Send KICK before a client that is sent away is closed."),
    off("im.single_session", "A LOGIN closes the older connections of the same user."),
    off("im.announce_join", "Tell a room when a user, not a guest, enters."),
    choice::<Forward>(
        "im.forward",
        "\"no\"",
        "What netsvr workers get of each accepted CMS, as the data of a Transfer. content: \
         `messageContent`; message: the whole CRMessage, and notices of `im.announce_join` too.",
    ),
    Key {
        allowed: "name of a queue topic of up to 255 bytes, or empty",
        ..text(
            "im.queue",
            "\"\"",
            "connmix queue topic that gets each accepted CMS as an event `cms`. Empty: none.",
        )
    },
];

/// The tables of the reference: name, title, what is said above it.
const TITLES: &[(&str, &str, &str)] = &[
    ("im", "`[im]`", "Clients of the IM protocol. Room X is the topic `cr:X`."),
    ("im.commands", "`[im.commands]`", "For fleets of clients that were built with other numbers."),
    ("im.statuses", "`[im.statuses]`", "The same for the status codes."),
    ("im.login_fields", "`[im.login_fields]`", "The same for the fields in the body of a LOGIN."),
];

/// The section of the tables.
pub(crate) const SECTION: Section = Section { keys: KEYS, lists: &[], titles: TITLES };

/// `[im]`. Rates of 0 are no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Im {
    pub len_mode: LenRule,
    pub byte_order: ByteOrder,
    pub versions: Versions,
    pub gzip_server: GzipServer,
    pub cms_error_reply: bool,
    pub kick_notify: bool,
    pub single_session: bool,
    pub announce_join: bool,
    pub forward: Forward,
    /// Queue topic; empty: none.
    pub queue: String,
    pub commands: Commands,
    pub statuses: Statuses,
    pub login_fields: LoginFields,
    pub idle_timeout: Duration,
    pub login_timeout: Duration,
    pub frame_timeout: Duration,
    pub write_timeout: Duration,
    /// 0: every message at once.
    pub batch_delay: Duration,
    pub batch_max_messages: u32,
    pub batch_max_bytes: u32,
    pub max_body: u32,
    pub max_plain: u32,
    pub max_content: u32,
    pub max_websocket_message: u32,
    pub gzip_min: u32,
    pub max_rooms: u32,
    /// 0: no limit.
    pub max_room_members: u32,
    pub max_room_id: u32,
    pub max_user_id: u32,
    pub max_token: u32,
    pub cms_rate: u32,
    pub cms_burst: u32,
    pub room_rate: u32,
    pub room_burst: u32,
    pub request_rate: u32,
    pub request_burst: u32,
    pub max_errors: u32,
    pub out_high_water: u32,
}

/// Whom notifications are compressed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GzipServer {
    /// Clients that have shown that they know gzip.
    Negotiated,
    Always,
    Never,
}

words!(GzipServer { Negotiated = "negotiated", Always = "always", Never = "never" });

/// What workers get of a CMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    No,
    /// Its `messageContent`.
    Content,
    /// The serialized CRMessage.
    Message,
}

words!(Forward { No = "no", Content = "content", Message = "message" });
words!(ByteOrder { Big = "big", Little = "little" });

/// `im.len_mode`.
#[derive(Clone, Copy, PartialEq)]
enum LenChoice {
    Body,
    Rest,
    Frame,
    Auto,
}

words!(LenMode { Body = "body", Rest = "rest", Frame = "frame" });
words!(LenChoice { Body = "body", Rest = "rest", Frame = "frame", Auto = "auto" });

const fn off(key: &'static str, what: &'static str) -> Key {
    Key { default: "false", ..flag(key, what) }
}

/// Reads it.
pub(crate) fn read(settings: &Settings) -> Result<Im, ConfigError> {
    Ok(Im {
        len_mode: len_mode(settings)?,
        byte_order: settings.choice("im.byte_order")?,
        versions: versions(settings)?,
        gzip_server: settings.choice("im.gzip_server")?,
        cms_error_reply: settings.flag("im.cms_error_reply")?,
        kick_notify: settings.flag("im.kick_notify")?,
        single_session: settings.flag("im.single_session")?,
        announce_join: settings.flag("im.announce_join")?,
        forward: settings.choice("im.forward")?,
        queue: queue(settings)?,
        commands: commands(settings)?,
        statuses: statuses(settings)?,
        login_fields: login_fields(settings)?,
        idle_timeout: settings.duration("im.idle_timeout")?,
        login_timeout: settings.duration("im.login_timeout")?,
        frame_timeout: settings.duration("im.frame_timeout")?,
        write_timeout: settings.duration("im.write_timeout")?,
        batch_delay: settings.duration("im.batch_delay")?,
        batch_max_messages: settings.number("im.batch_max_messages")?,
        batch_max_bytes: settings.number("im.batch_max_bytes")?,
        max_body: settings.number("im.max_body")?,
        max_plain: settings.number("im.max_plain")?,
        max_content: settings.number("im.max_content")?,
        max_websocket_message: settings.number("im.max_websocket_message")?,
        gzip_min: settings.number("im.gzip_min")?,
        max_rooms: settings.number("im.max_rooms")?,
        max_room_members: settings.number("im.max_room_members")?,
        max_room_id: settings.number("im.max_room_id")?,
        max_user_id: settings.number("im.max_user_id")?,
        max_token: settings.number("im.max_token")?,
        cms_rate: settings.number("im.cms_rate")?,
        cms_burst: settings.number("im.cms_burst")?,
        room_rate: settings.number("im.room_rate")?,
        room_burst: settings.number("im.room_burst")?,
        request_rate: settings.number("im.request_rate")?,
        request_burst: settings.number("im.request_burst")?,
        max_errors: settings.number("im.max_errors")?,
        out_high_water: settings.number("im.out_high_water")?,
    })
}

fn len_mode(settings: &Settings) -> Result<LenRule, ConfigError> {
    const AUTO: &str = "im.len_auto";
    let of = |name: &String| LenMode::WORDS.iter().position(|word| word == name);
    let at: Option<Vec<usize>> = settings.texts(AUTO)?.iter().map(of).collect();
    let listed: Option<Vec<LenMode>> =
        at.map(|at| at.into_iter().map(|at| LenMode::VALUES[at]).collect());
    // What is not used is checked as well.
    let Some(modes) = listed.and_then(|listed| Modes::of(&listed)) else {
        let complaint = Complaint::new("these are not two or three different modes")
            .allowed(settings.allowed(AUTO))
            .advise("For clients of one kind set `im.len_mode` to what they count");
        return Err(settings.error(AUTO, complaint));
    };
    Ok(match settings.choice("im.len_mode")? {
        LenChoice::Body => LenRule::Always(LenMode::Body),
        LenChoice::Rest => LenRule::Always(LenMode::Rest),
        LenChoice::Frame => LenRule::Always(LenMode::Frame),
        LenChoice::Auto => LenRule::Auto(modes),
    })
}

fn login_fields(settings: &Settings) -> Result<LoginFields, ConfigError> {
    let fields = LoginFields {
        token: settings.number("im.login_fields.token")?,
        user_id: settings.number("im.login_fields.user_id")?,
    };
    if fields.token == fields.user_id {
        let complaint = Complaint::new(format!("{} is the number of token, too", fields.user_id))
            .allowed("a number of its own for each field");
        return Err(settings.error("im.login_fields.user_id", complaint));
    }
    Ok(fields)
}

fn queue(settings: &Settings) -> Result<String, ConfigError> {
    let topic = settings.text("im.queue")?;
    if topic.len() > QUEUE_TOPIC_BYTES_MAX {
        let complaint = Complaint::new("the name is too long for a queue topic")
            .allowed(settings.allowed("im.queue"));
        return Err(settings.error("im.queue", complaint));
    }
    Ok(topic)
}

fn versions(settings: &Settings) -> Result<Versions, ConfigError> {
    let listed: Vec<u8> = settings.numbers("im.versions")?;
    if listed.is_empty() {
        let complaint = Complaint::new("no client could log in")
            .allowed(settings.allowed("im.versions"))
            .advise("Name at least one, e.g. [0, 1]");
        return Err(settings.error("im.versions", complaint));
    }
    Ok(Versions::of(&listed))
}

fn commands(settings: &Settings) -> Result<Commands, ConfigError> {
    let number = |name: &str| settings.number::<u8>(&format!("im.commands.{name}"));
    let commands = Commands {
        reserved: number("reserved")?,
        login: number("login")?,
        logout: number("logout")?,
        ping: number("ping")?,
        pong: number("pong")?,
        join_cr: number("join_cr")?,
        leave_cr: number("leave_cr")?,
        cms: number("cms")?,
        cr_notify: number("cr_notify")?,
        kick: number("kick")?,
    };
    let requests = commands.requests();
    for (index, (name, number)) in requests.iter().enumerate() {
        if let Some((twin, _)) = requests[..index].iter().find(|(_, other)| other == number) {
            let complaint = Complaint::new(format!("{number} is the number of {twin}, too"))
                .allowed("a number of its own for each request of a client")
                .advise("Only pong, cr_notify and kick may repeat a number");
            return Err(settings.error(&format!("im.commands.{name}"), complaint));
        }
    }
    Ok(commands)
}

fn statuses(settings: &Settings) -> Result<Statuses, ConfigError> {
    let mut statuses = Statuses::default();
    for (status, name, _) in Status::ALL {
        statuses.set(status, settings.number(&format!("im.statuses.{name}"))?);
    }
    Ok(statuses)
}
