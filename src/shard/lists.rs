//! The lists that name all protocols: numbers of kinds, formats and forms, and who makes each.

use crate::config::model::Config;
use crate::hub::push::Payload;
use crate::shard::forms::{self, Forms, Made};
use crate::shard::{connmix, im, netsvr_push, xxim};
use crate::wire::deflate::Deflater;
use crate::wire::im::Gzip;

/// Kinds of connections.
pub mod kind {
    use crate::shard::conns::Kind;

    pub const LEAVING: Kind = Kind::LEAVING;
    /// A client of an HTTP listener that has not been upgraded yet.
    pub const GREETING: Kind = Kind(2);
    /// Upgraded to netsvr; waits for the callback's verdict or for a worker with room.
    pub const OPENING: Kind = Kind(3);
    pub const NETSVR: Kind = Kind(4);
    pub const ECHO: Kind = Kind(5);
    pub const XXIM: Kind = Kind(6);
    /// Requests of xxim over HTTP.
    pub const XXIM_HTTP: Kind = Kind(7);
    pub const CONNMIX: Kind = Kind(8);
    pub const IM: Kind = Kind(9);
    /// A connection of a netsvr business process.
    pub const BUSINESS: Kind = Kind(10);
    pub const CONNMIX_API: Kind = Kind(11);

    /// What each of them is called in the log, by number.
    pub const NAMES: &[&str] = &[
        "nobody",
        "leaving",
        "http",
        "opening",
        "netsvr",
        "echo",
        "xxim",
        "xxim-http",
        "connmix",
        "im",
        "netsvr-business",
        "connmix-api",
    ];
}

/// What protocols make of a payload once for all shards.
pub mod format {
    use crate::hub::push::Format;

    /// The body of a CR_NOTIFY that belongs to no room.
    pub const IM_NOTIFY: Format = Format(4);
    /// An xxim message, as it is encrypted.
    pub const XXIM: Format = Format(5);
    /// An xxim message in a WebSocket frame.
    pub const XXIM_WEBSOCKET: Format = Format(6);
    /// An xxim message in a frame of its TCP variant.
    pub const XXIM_TCP: Format = Format(7);

    const ALL: [Format; Format::COUNT] = [
        Format::WS_TEXT,
        Format::WS_BINARY,
        Format::WS_TEXT_DEFLATE,
        Format::WS_BINARY_DEFLATE,
        IM_NOTIFY,
        XXIM,
        XXIM_WEBSOCKET,
        XXIM_TCP,
    ];

    /// Each is at the place of its number: no two are the same, and none is beyond the last.
    const _: () = {
        let mut at = 0;
        while at < ALL.len() {
            assert!(ALL[at].0 as usize == at, "two formats have the same number");
            at += 1;
        }
    };
}

/// See [`forms::NONE`] and the protocols for what each means.
pub const NETSVR_PLAIN: u8 = forms::NONE + 1;
pub const NETSVR_DEFLATE: u8 = 2;
pub const XXIM_WEBSOCKET: u8 = 3;
pub const XXIM_TCP: u8 = 4;
pub const XXIM_SEALED: u8 = 5;
pub const CONNMIX_MESSAGE: u8 = 6;
pub const CONNMIX_LINE: u8 = 7;
pub const CONNMIX_LENGTH: u8 = 8;
/// The first of those of IM, one for each of its wire formats.
pub const IM: u8 = 16;
const IM_LAST: u8 = IM + im::FORMS - 1;

/// Makes what a payload is in each form.
pub(super) struct Maker<'a> {
    pub payload: &'a Payload,
    pub config: &'a Config,
    pub deflater: Option<&'a mut Deflater>,
    pub gzip: &'a mut Gzip,
    pub unix_ms: u64,
    /// What the forms of IM have in common.
    pub im: Option<im::Fan<'a>>,
}

impl Maker<'_> {
    /// What the payload is in this form.
    pub fn make(&mut self, form: u8) -> Made {
        let payload = self.payload;
        let customer = &self.config.netsvr.customer;
        match form {
            NETSVR_PLAIN => Made::Frame(netsvr_push::plain(payload, customer)),
            NETSVR_DEFLATE => {
                let deflater = self.deflater.as_deref_mut();
                Made::Frame(netsvr_push::deflated(payload, customer, deflater))
            }
            XXIM_WEBSOCKET..=XXIM_SEALED => xxim::make(form, payload),
            CONNMIX_MESSAGE..=CONNMIX_LENGTH => connmix::make(form, payload),
            IM..=IM_LAST => {
                im::make(form - IM, payload, self.config, self.gzip, self.unix_ms, &mut self.im)
            }
            _ => Made::Nothing,
        }
    }
}

/// How many clients of xxim were sent a payload that clients with common settings refuse.
pub fn large(forms: &Forms, payload: &Payload) -> u64 {
    let xxim = |form: u8| (XXIM_WEBSOCKET..=XXIM_SEALED).contains(&form);
    let count = forms.iter().filter(|form| xxim(form.form)).map(|form| form.count).sum();
    if count > 0 && xxim::is_large(payload) { count } else { 0 }
}
