//! Requests of xxim backends that every node of the mesh carries out (xxim section 6.1): the same
//! messages as over gRPC, as calls between nodes. The node that was asked puts the answers
//! together; one that does not answer in two seconds has done nothing, as far as anybody knows.
//!
//! Costs: the request is encoded once more; a task per request of another node.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tokio::sync::{Semaphore, mpsc};

use super::Pushes;
use crate::lists::letters::{MeshCall, MeshRequest};
use crate::mail::UnboundedSender;
use crate::outside::nodes;
use crate::outside::shards::Shards;
use crate::protocols::xxim::config::push::XximPushService;
use crate::protocols::xxim::wire::proto as pb;

/// Methods of the calls.
pub(super) const SEND: &str = "xxim/sendMsg";
pub(crate) const GET: &str = "xxim/getUserConn";
pub(super) const KICK: &str = "xxim/kickUserConn";

/// Calls of other nodes that are under way.
const CALLS_MAX: usize = 1024;

impl Pushes {
    /// The request for other nodes; nothing if it is for this one alone.
    pub(super) fn abroad(&self, request: &impl Message) -> Bytes {
        match self.mesh {
            Some(_) => request.encode_to_vec().into(),
            None => Bytes::new(),
        }
    }

    /// What the other nodes answer. What can not be read is left out.
    pub(super) async fn elsewhere<R: Message + Default>(
        &self,
        method: &'static str,
        body: Bytes,
    ) -> Vec<R> {
        let Some(mesh) = &self.mesh else { return Vec::new() };
        let answers = nodes::call(mesh, method, body).await;
        answers.into_iter().filter_map(|body| R::decode(body).ok()).collect()
    }

    /// Carries out a request of another node. Refused ones were refused there, too.
    async fn carry_out(&self, method: &str, body: Bytes) -> Bytes {
        let answer = match method {
            SEND => match pb::SendMsgReq::decode(body) {
                Ok(request) => self.send(request).await.map(|a| a.encode_to_vec()).ok(),
                Err(_) => None,
            },
            GET => match pb::GetUserConnReq::decode(body) {
                Ok(request) => self.get(request).await.map(|a| a.encode_to_vec()).ok(),
                Err(_) => None,
            },
            KICK => match pb::KickUserConnReq::decode(body) {
                Ok(request) => self.kick(request).await.map(|a| a.encode_to_vec()).ok(),
                Err(_) => None,
            },
            _ => None,
        };
        answer.unwrap_or_default().into()
    }
}

/// Answers the calls of other nodes until the mesh ends. `settings` are those of the push service
/// here, if there is one.
pub(in crate::protocols::xxim::service) async fn serve(
    mut calls: mpsc::Receiver<MeshCall>,
    mesh: UnboundedSender<MeshRequest>,
    settings: Option<XximPushService>,
    pod: Ipv4Addr,
    shards: Shards,
) {
    let settings = XximPushService {
        // Whoever asks has been asked about that.
        allow_broadcast: true,
        cluster: false,
        ..settings.unwrap_or_else(nobody)
    };
    let pushes = Pushes::new(shards, settings, pod, None);
    let places = Arc::new(Semaphore::new(CALLS_MAX));
    while let Some(MeshCall { node, number, method, body }) = calls.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (pushes, mesh) = (pushes.clone(), mesh.clone());
        tokio::spawn(async move {
            let _place = place;
            let body = pushes.carry_out(&method, body).await;
            mesh.send(MeshRequest::Called { node, number, body });
        });
    }
}

/// The settings of a node without a push service: it names no secrets.
fn nobody() -> XximPushService {
    XximPushService {
        bind: ([127, 0, 0, 1], 0).into(),
        secret: String::new(),
        allow_from: Vec::new(),
        tls: None,
        allow_broadcast: true,
        cluster: false,
        expose_secrets: false,
        request_bytes_max: 0,
        bounds: Default::default(),
    }
}
