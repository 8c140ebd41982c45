//! The list of protocols: which of them has the connections of a kind.

use std::net::SocketAddr;

use crate::config::model::ClientProtocol;
use crate::edge::upgrade::Opening as Upgrade;
use crate::shard::mailbox::Request;
use crate::shard::tenant::Tenant;
use crate::shard::{Engine, connmix, connmix_api, echo, im, netsvr, xxim};
use crate::spare::Look;

/// Writes the fields of [`Tenants`], what concerns all of them, and `hook!`, which calls a hook of
/// the protocol whose kind a connection is: `hook!(tenants, kind, due(engine, slot), else default)`.
/// A line is `field: Type { KINDS } of the protocol of a route`.
macro_rules! tenants {
    ($d:tt $($field:ident: $type:ty { $($kind:ident),+ } $(of $protocol:ident)?;)+) => {
        /// One shard's part of each protocol.
        pub struct Tenants {
            $(pub $field: $type,)+
        }

        impl Tenants {
            /// Nobody is connected.
            pub fn new(engine: &mut Engine) -> Tenants {
                Tenants { $($field: <$type>::new(engine),)+ }
            }

            /// A connection was upgraded to a WebSocket, on a route with this protocol.
            pub fn upgraded(
                &mut self,
                engine: &mut Engine,
                slot: u32,
                peer: SocketAddr,
                upgrade: Upgrade,
            ) {
                match upgrade.protocol {
                    $($(ClientProtocol::$protocol { .. } => {
                        self.$field.upgraded(engine, slot, peer, upgrade);
                    })?)+
                }
            }

            /// Whether nothing is under way that a drain waits for.
            pub fn are_idle(&self) -> bool {
                $(self.$field.is_idle())&&+
            }

            /// Whether nothing is kept of any connection; for tests.
            pub fn have_nobody(&self) -> bool {
                $(self.$field.has_nobody())&&+
            }

            /// The next request for the sidecar, if the turn of one has come.
            pub fn next_request(&mut self, engine: &mut Engine) -> Option<Request> {
                None$(.or_else(|| self.$field.next_request(engine)))+
            }

            /// Gives back what a peak took.
            pub fn give_back(&mut self, look: &mut Look) {
                $(self.$field.give_back(look);)+
            }
        }

        macro_rules! hook {
            ($d tenants:expr, $d kind:expr, $d name:ident($d($d arg:expr),*), else $d other:expr) => {
                match $d kind {
                    $($($crate::shard::lists::kind::$kind)|+ => {
                        $crate::shard::tenant::Tenant::$d name(&mut $d tenants.$field, $d($d arg),*)
                    })+
                    _ => $d other,
                }
            };
        }
        pub(super) use hook;
    };
}

tenants! { $
    netsvr: netsvr::Netsvr { OPENING, NETSVR, BUSINESS } of Netsvr;
    xxim: xxim::State { XXIM, XXIM_HTTP } of Xxim;
    connmix: connmix::Connmix { CONNMIX } of Connmix;
    api: connmix_api::Api { CONNMIX_API };
    im: im::Im { IM } of Im;
    echo: echo::Echo { ECHO } of Echo;
}
