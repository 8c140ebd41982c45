//! What xxim has done away from the shards: requests to upstreams, hooks, keys, and the push
//! service of its backends.

mod dispatch;
mod hooks;
pub mod push;
mod unwrap;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::lists::letters::{Mail, MeshCall, MeshRequest};
use crate::mail::UnboundedSender;
use crate::outside::Outside;
use crate::outside::places::listener;
use crate::outside::shards::Shards;
use crate::protocols::xxim::config::upstream::XximUpstreams;
use crate::protocols::xxim::letters::{Letter, ServiceRequest};
use crate::rsa_keys::RsaKey;

use dispatch::Dispatch;
use hooks::Hooks;
use push::Pushes;
use unwrap::Unwrapper;

/// The generated services and clients.
#[allow(missing_docs)]
pub mod grpc {
    include!(concat!(env!("OUT_DIR"), "/grpc/pb.rs"));
}

/// What the services need to know; by default there is nobody to call and nobody who pushes.
#[derive(Debug)]
pub struct Settings {
    /// What clients encrypt their seeds for, and how many threads decrypt them.
    pub key: Option<Arc<RsaKey>>,
    pub key_threads: u32,
    pub upstreams: XximUpstreams,
    /// The push service's socket and certificates. `None`: no push service.
    pub push: Option<(TcpListener, push::Certificates)>,
    /// The address under which this node is known to backends, or unspecified.
    pub pod: Ipv4Addr,
    /// The way to other nodes and what they ask. `None`: no mesh.
    pub mesh: Option<(UnboundedSender<MeshRequest>, mpsc::Receiver<MeshCall>)>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            key: None,
            key_threads: 1,
            upstreams: XximUpstreams::default(),
            push: None,
            pod: Ipv4Addr::UNSPECIFIED,
            mesh: None,
        }
    }
}

/// What carries requests.
pub struct Service {
    hooks: Arc<Hooks>,
    dispatch: Arc<Dispatch>,
    unwrapper: Unwrapper,
    shards: Shards,
}

impl Service {
    /// Starts the threads and the push service. Fails if an address is not a URL, or if the process
    /// has no descriptor or thread left. Needs the context of a runtime.
    pub fn start(settings: Settings, outside: &Outside) -> io::Result<Service> {
        let Settings { key, key_threads, upstreams, push, pod, mesh } = settings;
        let shards = &outside.shards;
        let hooks = Hooks::new(&upstreams.hooks, outside)?;
        let unwrapper = Unwrapper::start(key, key_threads, outside)?;
        let dispatch = Dispatch::new(&upstreams, outside)?;
        let nodes = mesh.as_ref().map(|(nodes, _)| nodes.clone());
        if let Some((nodes, calls)) = mesh {
            let push = upstreams.push.clone();
            tokio::spawn(push::cluster::serve(calls, nodes, push, pod, shards.clone()));
        }
        if let (Some((socket, tls)), Some(push)) = (push, upstreams.push) {
            let pushes = Pushes::new(shards.clone(), push, pod, nodes);
            tokio::spawn(push::serve(listener(socket)?, tls, pushes, outside.peers("push")));
        }
        Ok(Service {
            hooks: Arc::new(hooks),
            dispatch: Arc::new(dispatch),
            unwrapper,
            shards: shards.clone(),
        })
    }

    /// Begins to carry a request. Needs the context of a runtime.
    pub fn begin(&self, request: ServiceRequest) {
        match request {
            ServiceRequest::Check { conn, number, identity, method } => {
                let hooks = self.hooks.clone();
                self.shards.answer(conn.shard(), async move {
                    let permission = hooks.before_request(&identity, &method).await;
                    Mail::Xxim(Letter::Checked { conn, number, permission })
                });
            }
            ServiceRequest::Upstream { conn, number, call } => {
                self.dispatch.begin(conn, number, call);
            }
            ServiceRequest::CancelUpstream { conn } => self.dispatch.cancel(conn),
            ServiceRequest::Hook { conn, kind, body } => self.hooks.tell(conn, kind, body),
            ServiceRequest::Unwrap { conn, number, key, iv } => {
                self.unwrapper.begin(conn, number, key, iv);
            }
        }
    }
}
