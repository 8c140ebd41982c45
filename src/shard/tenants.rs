//! The list of protocols: which of them has the connections of a kind.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::all::Config;
use crate::config::model::ClientProtocol;
use crate::engine::Engine;
use crate::engine::tenant::Tenant;
use crate::engine::tenant::Upgrade;
use crate::lists::letters::SidecarRequest;
use crate::metrics::Gauges;
use crate::protocols;
use crate::spare::Look;

/// Writes the fields of [`Tenants`], what concerns all of them, and `hook!`, which calls a hook of
/// the protocol whose kind a connection is: `hook!(tenants, kind, due(engine, slot), else other)`.
/// A line is `field: Type { KINDS } of the protocol of a route, its part of the configuration`.
macro_rules! tenants {
    ($d:tt $($field:ident: $type:ty { $($kind:ident),+ } $(of $protocol:ident)?, $part:expr;)+) => {
        /// One shard's part of each protocol.
        pub struct Tenants {
            $(pub $field: $type,)+
        }

        impl Tenants {
            /// Nobody is connected.
            pub fn new(engine: &mut Engine, config: &Config) -> Tenants {
                $(let $field = {
                    let part: fn(&Config) -> _ = $part;
                    <$type>::new(engine, part(config))
                };)+
                Tenants { $($field,)+ }
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

            /// A turn has begun, and what was due has been seen to.
            pub fn turn_begins(&mut self, engine: &mut Engine) {
                $(self.$field.turn_begins(engine);)+
            }

            /// A turn ends; what is queued now goes out in it.
            pub fn turn_ends(&mut self, engine: &mut Engine) {
                $(self.$field.turn_ends(engine);)+
            }

            /// Whether there is something to do in another turn without any input.
            pub fn are_busy(&self, engine: &Engine) -> bool {
                $(self.$field.is_busy(engine))||+
            }

            /// When the next turn must come at the latest, milliseconds of the process clock.
            pub fn next_ms(&self, engine: &Engine) -> Option<u64> {
                [$(self.$field.next_ms(engine)),+].into_iter().flatten().min()
            }

            /// Adds what is the protocols' own to the gauges of this moment.
            pub fn report(&self, gauges: &mut Gauges) {
                $(self.$field.report(gauges);)+
            }

            /// Whether nothing is under way that a drain waits for.
            pub fn are_idle(&self) -> bool {
                $(self.$field.is_idle())&&+
            }

            /// Whether nothing is kept of any connection; for tests.
            pub fn have_nobody(&self) -> bool {
                $(self.$field.has_nobody())&&+
            }

            /// The next request for the sidecar, if the turn of one has come. The order of the list
            /// is that of the protocols.
            pub fn next_request(&mut self, engine: &mut Engine) -> Option<SidecarRequest> {
                None$(.or_else(|| self.$field.next_request(engine)))+
            }

            /// Gives back what a peak took.
            pub fn give_back(&mut self, look: &mut Look) {
                $(self.$field.give_back(look);)+
            }
        }

        macro_rules! hook {
            ($d of:expr, $d kind:expr, $d hook:ident($d($d arg:expr),*), else $d other:expr) => {
                match $d kind {
                    $($($crate::lists::numbers::kind::$kind)|+ => {
                        $crate::engine::tenant::Tenant::$d hook(&mut $d of.$field, $d($d arg),*)
                    })+
                    _ => $d other,
                }
            };
        }
        pub(super) use hook;
    };
}

fn part_of_connmix(config: &Config) -> Arc<protocols::connmix::Sections> {
    let (connmix, connmix_servers) = (config.connmix.clone(), config.connmix_servers.clone());
    Arc::new(protocols::connmix::Sections { connmix, connmix_servers })
}

fn part_of_xxim(config: &Config) -> Arc<protocols::xxim::Sections> {
    let (xxim, xxim_upstreams) = (config.xxim.clone(), config.xxim_upstreams.clone());
    Arc::new(protocols::xxim::Sections { xxim, xxim_upstreams })
}

tenants! { $
    netsvr: protocols::netsvr::Netsvr { OPENING, NETSVR, BUSINESS } of Netsvr,
        |all| Arc::new(all.netsvr.clone());
    xxim: protocols::xxim::Xxim { XXIM, XXIM_HTTP } of Xxim, part_of_xxim;
    connmix: protocols::connmix::Connmix { CONNMIX } of Connmix, part_of_connmix;
    api: protocols::connmix::api::Api { CONNMIX_API }, part_of_connmix;
    im: protocols::im::Im { IM } of Im, |all| Arc::new(all.im.clone());
    echo: protocols::echo::Echo { ECHO } of Echo, |all| all.netsvr.customer.heartbeat_interval;
}
