//! `[[xxim.upstream]]`, `[[xxim.route]]` and `[xxim.hooks]`: the backends of xxim clients (xxim
//! sections 4.2 to 4.4 and 5.2). What they push is in [`super::push`].
//!
//! Invariants: routes are sorted by the length of their prefix, longest first, and each names an
//! upstream that exists, so a lookup is one walk and its result needs no check. Costs: a lookup
//! compares at most [`ROUTES_MAX`] prefixes.

use std::time::Duration;

use super::push;
use super::push::XximPushService;
use crate::config::choice::words;
use crate::config::error::{Complaint, ConfigError};
use crate::config::keys::{self, Key, Section, choice, flag, text};
use crate::config::places::base;
use crate::config::settings::Settings;
use crate::protocols::xxim::limits::{
    XXIM_ROUTES_MAX as ROUTES_MAX, XXIM_UPSTREAMS_MAX as UPSTREAMS_MAX,
};

/// Name of the upstream that stands for the netsvr workers.
pub const WORKER: &str = "worker";
/// Highest field number of protobuf.
const TAG_MAX: u32 = 536_870_911;

/// The backends of xxim clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct XximUpstreams {
    pub upstreams: Vec<XximUpstream>,
    /// Longest prefix first.
    pub routes: Vec<XximRoute>,
    pub hooks: XximHooks,
    /// Requests over HTTP, without a WebSocket (section 7.1).
    pub http_api: bool,
    /// `None`: no push service.
    pub push: Option<XximPushService>,
}

/// One `[[xxim.upstream]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct XximUpstream {
    /// The value of metric labels and of `xxim.route.upstream`.
    pub name: String,
    /// `http` or `https`; without a `/` at the end.
    pub url: String,
    pub mode: XximMode,
    /// HTTP/2 without negotiation, for `http` URLs of the HTTP modes.
    pub http2: bool,
    /// gRPC: methods that section 4.2 does not list are called by their name.
    pub grpc_generic: bool,
    /// Connections to it that may be open at the same time; further requests wait.
    pub connections_max: u32,
    /// Time to open a connection.
    pub connect_timeout: Duration,
    /// Bytes of a reply's body.
    pub reply_bytes_max: u32,
    /// Failures in a row after which the circuit opens.
    pub circuit_failures: u32,
    /// Time after which an open circuit lets one request through.
    pub circuit_pause: Duration,
}

/// How requests are carried (section 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XximMode {
    /// HTTP, the body is the request message, everything else is in headers.
    Raw,
    /// HTTP, the body is a CommonReq and the reply a CommonResp.
    Envelope,
    /// A unary gRPC call.
    Grpc,
}

words!(XximMode { Raw = "raw", Envelope = "envelope", Grpc = "grpc" });

/// `xxim.hooks.protocol`.
#[derive(Clone, Copy, PartialEq)]
enum HookProtocol {
    Http,
    Grpc,
}

words!(HookProtocol { Http = "http", Grpc = "grpc" });

/// One `[[xxim.route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XximRoute {
    /// Methods that begin with it.
    pub prefix: String,
    pub to: XximTarget,
    /// Field number of commonReq in requests; `None`: as section 4.2 says for the method.
    request_tag: Option<u32>,
    /// Field number of commonResp in responses; `None`: as section 4.2 says for the method.
    response_tag: Option<u32>,
    pub timeout: Duration,
    /// Callable before login, even if the method has no segment `white`.
    pub white: bool,
    /// Calls go on when their connection is gone.
    pub detach: bool,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XximTarget {
    /// Index into [`XximUpstreams::upstreams`].
    Upstream(u16),
    /// The request becomes a Transfer to a netsvr worker.
    Worker,
}

/// Field numbers of commonReq in a request and of commonResp in its response; 0: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    pub request: u32,
    pub response: u32,
}

/// Who is told that clients have come and gone (section 5.2, step 6).
#[derive(Clone, Debug, PartialEq)]
pub struct XximHooks {
    /// `None`: nobody. HTTP: `/afterConnect` and `/afterDisconnect` are appended.
    pub url: Option<String>,
    /// Call `pb.imService` over gRPC instead of HTTP.
    pub grpc: bool,
    /// Time for one attempt.
    pub timeout: Duration,
    /// Attempts per hook, the first included.
    pub attempts_max: u32,
    /// Hooks that may wait for their turn or their next attempt.
    pub waiting_max: u32,
    /// Requests that are under way.
    pub under_way_max: u32,
    /// Ask before requests, too.
    pub before_request: bool,
    /// For how long a permission counts for further requests of its connection and token.
    pub before_request_cache: Duration,
}

impl XximUpstreams {
    /// The route of a method and its number: the one with the longest prefix.
    pub fn route(&self, method: &str) -> Option<(u16, &XximRoute)> {
        let found = self.routes.iter().position(|route| method.starts_with(&*route.prefix))?;
        Some((u16::try_from(found).ok()?, self.routes.get(found)?))
    }
}

impl XximRoute {
    /// A route with the tags of section 4.2 that gives up after `timeout`.
    pub fn new(prefix: impl Into<String>, to: XximTarget, timeout: Duration) -> XximRoute {
        let prefix = prefix.into();
        XximRoute {
            prefix,
            to,
            request_tag: None,
            response_tag: None,
            timeout,
            white: false,
            detach: true,
        }
    }

    /// The tags of a method of this route.
    pub fn tags(&self, method: &str) -> Tags {
        let listed = listed_tags(method);
        Tags {
            request: self.request_tag.unwrap_or(listed.request),
            response: self.response_tag.unwrap_or(listed.response),
        }
    }

    /// Field number of a commonReq that must not be in a request whose identity is around it (mode
    /// `envelope`); 0: nothing is known of the method.
    pub fn inner_tag(&self, method: &str) -> u32 {
        let listed = AREAS.iter().any(|area| method.starts_with(area));
        let listed = if listed { listed_tags(method).request } else { 0 };
        self.request_tag.unwrap_or(listed)
    }
}

/// Where the methods of section 4.2 are.
const AREAS: [&str; 7] = [
    "/v1/user/",
    "/v1/msg/",
    "/v1/notice/",
    "/v1/im/",
    "/v1/relation/",
    "/v1/group/",
    "/v1/appmgmt/",
];

/// Section 4.2: 1 and 1 unless noted.
fn listed_tags(method: &str) -> Tags {
    let (request, response) = match method {
        "/v1/msg/sendMsgList" | "/v1/msg/sendReadMsg" | "/v1/msg/sendEditMsg" => (11, 1),
        "/v1/msg/batchGetConvSeq" | "/v1/msg/batchGetMsgListByConvId" | "/v1/msg/getMsgById" => {
            (11, 11)
        }
        "/v1/notice/ackNoticeData" => (11, 1),
        _ => (1, 1),
    };
    Tags { request, response }
}

impl Default for XximHooks {
    fn default() -> XximHooks {
        XximHooks {
            url: None,
            grpc: false,
            timeout: Duration::from_secs(5),
            attempts_max: 5,
            waiting_max: 65_536,
            under_way_max: 64,
            before_request: false,
            before_request_cache: Duration::from_secs(10),
        }
    }
}

/// The keys that are not limits.
const KEYS: &[Key] = &[
    Key {
        default: "false",
        ..flag(
            "xxim.http_api",
            "Take requests over HTTP as well: POST of a CommonReq to the path of a method, on the \
             listeners of xxim clients.",
        )
    },
    Key {
        allowed: "1 to 32 letters, digits, `_` and `-`; not \"worker\"",
        ..text("xxim.upstream.name", "", "Name, for routes and metrics.")
    },
    Key {
        allowed: "`http://` or `https://` URL",
        ..keys::url(
            "xxim.upstream.url",
            "",
            "Where the backend is; HTTP modes append the method to it.",
        )
    },
    choice::<XximMode>(
        "xxim.upstream.mode",
        "\"raw\"",
        "How requests are carried. raw: HTTP, the message is the body; envelope: HTTP, CommonReq \
         and CommonResp around it; grpc: unary calls.",
    ),
    Key {
        default: "false",
        ..flag("xxim.upstream.http2", "Speak HTTP/2 to an `http://` URL; `https://` negotiates.")
    },
    Key {
        default: "false",
        ..flag(
            "xxim.upstream.grpc_generic",
            "Call methods that xxim does not list as `/pb.<service>Service/<Name>`.",
        )
    },
    Key {
        allowed: "beginning of methods, e.g. \"/v1/user/\"",
        ..text("xxim.route.prefix", "", "Methods that this route takes; the longest wins.")
    },
    Key {
        allowed: "name of an `[[xxim.upstream]]`, or \"worker\"",
        ..text(
            "xxim.route.upstream",
            "",
            "Backend of these methods. worker: each request is a Transfer to a netsvr worker.",
        )
    },
    Key {
        default: "false",
        ..flag(
            "xxim.route.white",
            "Callable before login. Methods with a segment `white` always are.",
        )
    },
    flag(
        "xxim.route.detach",
        "Calls go on when their client has left: what was received is carried out. false: they are \
         given up, and counted as `cancelled` in `ringway_upstream_calls_total`.",
    ),
    Key {
        allowed: "`http://` or `https://` URL, or empty",
        ..keys::url(
            "xxim.hooks.url",
            "\"\"",
            "Backend that is told of logins and departures. Empty: none.",
        )
    },
    choice::<HookProtocol>(
        "xxim.hooks.protocol",
        "\"http\"",
        "http: POST to url/afterConnect and url/afterDisconnect; grpc: `pb.imService`.",
    ),
    Key {
        default: "false",
        ..flag(
            "xxim.hooks.before_request",
            "Ask the backend (BeforeRequest) before each request that is not white, as the \
             original does, so that revoked tokens and banned addresses take effect. While it can \
             not be asked such requests get code 4.",
        )
    },
];

/// The tables of the reference.
const TITLES: &[(&str, &str, &str)] = &[
    ("xxim.upstream", "`[[xxim.upstream]]`", "One table per backend."),
    ("xxim.route", "`[[xxim.route]]`", "One table per group of methods."),
    ("xxim.hooks", "`[xxim.hooks]`", ""),
];

/// The section of the tables.
pub(crate) const SECTION: Section =
    Section { keys: KEYS, lists: &["xxim.upstream", "xxim.route"], titles: TITLES };

/// Reads the tables.
pub(crate) fn read(settings: &Settings) -> Result<XximUpstreams, ConfigError> {
    let count = limited(settings, "xxim.upstream", UPSTREAMS_MAX)?;
    let mut upstreams: Vec<XximUpstream> = Vec::new();
    for index in 0..count {
        upstreams.push(upstream(settings, &format!("xxim.upstream.{index}"), &upstreams)?);
    }
    let count = limited(settings, "xxim.route", ROUTES_MAX)?;
    let mut routes: Vec<XximRoute> = Vec::new();
    for index in 0..count {
        routes.push(route(settings, &format!("xxim.route.{index}"), &upstreams, &routes)?);
    }
    routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
    Ok(XximUpstreams {
        upstreams,
        routes,
        hooks: hooks(settings)?,
        http_api: settings.flag("xxim.http_api")?,
        push: push::read(settings)?,
    })
}

fn limited(settings: &Settings, path: &str, max: usize) -> Result<usize, ConfigError> {
    let count = settings.count(path);
    if count <= max {
        return Ok(count);
    }
    let complaint = Complaint::new(format!("these are {count} tables"));
    Err(settings.error(path, complaint.allowed(format!("at most {max} tables [[{path}]]"))))
}

fn upstream(
    settings: &Settings,
    path: &str,
    others: &[XximUpstream],
) -> Result<XximUpstream, ConfigError> {
    let key = |name: &str| format!("{path}.{name}");
    let name = settings.text(&key("name"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let complaint = if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
        Complaint::new("this is not a name").allowed("1 to 32 letters, digits, `_` and `-`")
    } else if name == WORKER {
        Complaint::new("this name stands for the netsvr workers").advise("Choose another name")
    } else if others.iter().any(|other| other.name == name) {
        Complaint::new("another upstream has this name").advise("Give each upstream its own name")
    } else {
        return Ok(XximUpstream {
            name,
            url: base(settings, &key("url"))?,
            mode: settings.choice(&key("mode"))?,
            http2: settings.flag(&key("http2"))?,
            grpc_generic: settings.flag(&key("grpc_generic"))?,
            connections_max: settings.number(&key("connections_max"))?,
            connect_timeout: settings.duration(&key("connect_timeout"))?,
            reply_bytes_max: settings.number(&key("reply_bytes_max"))?,
            circuit_failures: settings.number(&key("circuit_failures"))?,
            circuit_pause: settings.duration(&key("circuit_pause"))?,
        });
    };
    Err(settings.error(&key("name"), complaint))
}

fn route(
    settings: &Settings,
    path: &str,
    upstreams: &[XximUpstream],
    others: &[XximRoute],
) -> Result<XximRoute, ConfigError> {
    let key = |name: &str| format!("{path}.{name}");
    let prefix = settings.text(&key("prefix"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'/';
    if !prefix.starts_with('/') || prefix.len() > 128 || !prefix.bytes().all(plain) {
        let complaint = Complaint::new("no method begins with this")
            .allowed("`/` and up to 127 letters, digits, `_` and `/`, e.g. \"/v1/user/\"");
        return Err(settings.error(&key("prefix"), complaint));
    }
    if others.iter().any(|other| other.prefix == prefix) {
        let complaint = Complaint::new("another route has this prefix").advise("Remove one");
        return Err(settings.error(&key("prefix"), complaint));
    }
    let tag = |name: &str| -> Result<Option<u32>, ConfigError> {
        let tag: i64 = settings.number(&key(name))?;
        Ok(u32::try_from(tag).ok().filter(|tag| *tag <= TAG_MAX))
    };
    Ok(XximRoute {
        prefix,
        to: target(settings, &key("upstream"), upstreams)?,
        request_tag: tag("request_tag")?,
        response_tag: tag("response_tag")?,
        timeout: settings.duration(&key("timeout"))?,
        white: settings.flag(&key("white"))?,
        detach: settings.flag(&key("detach"))?,
    })
}

fn target(
    settings: &Settings,
    path: &str,
    upstreams: &[XximUpstream],
) -> Result<XximTarget, ConfigError> {
    let name = settings.text(path)?;
    if name == WORKER {
        return Ok(XximTarget::Worker);
    }
    let found = upstreams.iter().position(|upstream| upstream.name == name);
    match found.and_then(|index| u16::try_from(index).ok()) {
        Some(index) => Ok(XximTarget::Upstream(index)),
        None => {
            let mut names: Vec<_> = upstreams.iter().map(|upstream| &*upstream.name).collect();
            names.push(WORKER);
            let complaint = Complaint::new("there is no such upstream")
                .allowed(names.join(", "))
                .advise("Add an [[xxim.upstream]] of this name");
            Err(settings.error(path, complaint))
        }
    }
}

fn hooks(settings: &Settings) -> Result<XximHooks, ConfigError> {
    const URL: &str = "xxim.hooks.url";
    const BEFORE_REQUEST: &str = "xxim.hooks.before_request";
    let hooks_url = match settings.text(URL)?.is_empty() {
        true => None,
        false => Some(base(settings, URL)?),
    };
    let before_request = settings.flag(BEFORE_REQUEST)?;
    if before_request && hooks_url.is_none() {
        let complaint = Complaint::new("nobody can be asked").advise("Set xxim.hooks.url");
        return Err(settings.error(BEFORE_REQUEST, complaint));
    }
    Ok(XximHooks {
        url: hooks_url,
        grpc: settings.choice::<HookProtocol>("xxim.hooks.protocol")? == HookProtocol::Grpc,
        timeout: settings.duration("xxim.hooks.timeout")?,
        attempts_max: settings.number("xxim.hooks.attempts_max")?,
        waiting_max: settings.number("xxim.hooks.waiting_max")?,
        under_way_max: settings.number("xxim.hooks.under_way_max")?,
        before_request,
        before_request_cache: settings.duration("xxim.hooks.before_request_cache")?,
    })
}
