//! The numbers that protocols are given: kinds of connections, formats and forms of pushes. Plain
//! data; whose kinds they are stands in `tenants`, who makes a form in `maker`.

use crate::engine::forms;

/// Numbers the kinds in the order in which they stand here, and names them for the log.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// Kinds of connections.
        pub mod kind {
            use crate::engine::conns::Kind;

            #[allow(clippy::upper_case_acronyms, non_camel_case_types)]
            enum Number {
                /// [`Kind::FREE`].
                _FREE,
                $($name,)+
            }

            $($(#[$doc])* pub const $name: Kind = Kind(Number::$name as u8);)+

            /// What each of them is called in the log, by number.
            pub const NAMES: &[&str] = &["nobody", $($word,)+];

            const _: () = assert!(LEAVING.0 == Kind::LEAVING.0);
            const _: () = assert!(NAMES.len() <= crate::engine::conns::KINDS_MAX);
        }
    };
}

kinds! {
    LEAVING = "leaving",
    /// A client of an HTTP listener that has not been upgraded yet.
    GREETING = "http",
    /// Its load balancer has not said yet whom it comes from.
    PROXY = "proxy",
    /// Upgraded to netsvr; waits for the callback's verdict or for a worker with room.
    OPENING = "opening",
    NETSVR = "netsvr",
    XXIM = "xxim",
    /// Requests of xxim over HTTP.
    XXIM_HTTP = "xxim-http",
    CONNMIX = "connmix",
    IM = "im",
    /// A connection of a netsvr business process.
    BUSINESS = "netsvr-business",
    CONNMIX_API = "connmix-api",
    ECHO = "echo",
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
