//! The push service of xxim backends: gRPC `pb.connService`, and the same over HTTP, on one port
//! (xxim section 6).
//!
//! Invariants: whoever has no secret (or certificate, or address) is told so and nothing else; an
//! empty filter sends to or kicks everybody only where the configuration allows it; what was
//! accepted first reaches every connection first. Costs: one message per shard and request, and one
//! answer of each.

mod answers;
pub(crate) mod cluster;
mod http;
mod server;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tonic::{Request, Response, Status};

use self::answers::Telling;
pub use self::server::Certificates;
pub(super) use self::server::serve;
use crate::lists::letters::{Mail, MeshRequest};
use crate::mail::UnboundedSender;
use crate::outside::shards::Shards;
use crate::protocols::xxim::config::push::XximPushService;
use crate::protocols::xxim::letters::{Letter, PushFilter, PushRequest, PushResult};
use crate::protocols::xxim::service::grpc;
use crate::protocols::xxim::wire::proto as pb;

/// Shards answer within a turn, unless the process ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// What backends may ask for.
#[derive(Clone)]
pub(super) struct Pushes {
    shards: Shards,
    settings: Arc<XximPushService>,
    telling: Arc<Telling>,
    /// Where requests for every node go; `None`: they are for this one.
    mesh: Option<UnboundedSender<MeshRequest>>,
    /// Held while a request is handed to the shards, so that all get requests in one order.
    order: Arc<Mutex<()>>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("getUserConnReq is missing")]
    NoFilter,
    #[error("an empty filter would mean everybody; xxim.push.allow_broadcast permits it")]
    Everybody,
    #[error("events 2 and 3 are the gateway's own; allowed: 0, 1 and from 4 on")]
    Event,
    #[error("a shard did not answer in time; the gateway may be ending")]
    NoAnswer,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        match refusal {
            Refusal::NoAnswer => Status::unavailable(refusal.to_string()),
            _ => Status::invalid_argument(refusal.to_string()),
        }
    }
}

impl Pushes {
    pub(super) fn new(
        shards: Shards,
        settings: XximPushService,
        pod: Ipv4Addr,
        mesh: Option<UnboundedSender<MeshRequest>>,
    ) -> Pushes {
        let mesh = mesh.filter(|_| settings.cluster);
        let pod_ip = if pod.is_unspecified() { String::new() } else { pod.to_string() };
        let telling = Arc::new(Telling { secrets: settings.expose_secrets, pod_ip });
        Pushes { shards, settings: Arc::new(settings), telling, mesh, order: Arc::default() }
    }

    async fn send(&self, request: pb::SendMsgReq) -> Result<pb::SendMsgResp, Refusal> {
        let body = self.abroad(&request);
        if request.event < 0 || matches!(request.event, 2 | 3) {
            return Err(Refusal::Event);
        }
        let filter = self.filter(request.get_user_conn_req)?;
        let users = filter.users.clone();
        let elsewhere = self.elsewhere(cluster::SEND, body);
        let work = PushRequest::Send { filter, event: request.event, data: request.data };
        let (pushed, elsewhere) = tokio::join!(self.ask(work), elsewhere);
        let answer = answers::sent(pushed?, &users, &self.telling);
        Ok(answers::sent_everywhere(answer, elsewhere))
    }

    async fn get(&self, request: pb::GetUserConnReq) -> Result<pb::GetUserConnResp, Refusal> {
        let body = self.abroad(&request);
        // It only reads, so it may be about everybody; the original's admin service asks so.
        let filter = filter(request);
        let elsewhere = self.elsewhere::<pb::GetUserConnResp>(cluster::GET, body);
        let (pushed, elsewhere) = tokio::join!(self.ask(PushRequest::Get { filter }), elsewhere);
        let mut answer = answers::found(pushed?, &self.telling);
        elsewhere.into_iter().for_each(|part| answer.conn_params.extend(part.conn_params));
        Ok(answer)
    }

    async fn kick(&self, request: pb::KickUserConnReq) -> Result<pb::KickUserConnResp, Refusal> {
        let body = self.abroad(&request);
        let filter = self.filter(request.get_user_conn_req)?;
        let elsewhere = self.elsewhere::<pb::KickUserConnResp>(cluster::KICK, body);
        let (kicked, _) = tokio::join!(self.ask(PushRequest::Kick { filter }), elsewhere);
        kicked?;
        Ok(pb::KickUserConnResp::default())
    }

    /// Of a request that changes something.
    fn filter(&self, request: Option<pb::GetUserConnReq>) -> Result<PushFilter, Refusal> {
        let filter = filter(request.ok_or(Refusal::NoFilter)?);
        let empty = filter == PushFilter::default();
        if empty && !self.settings.allow_broadcast { Err(Refusal::Everybody) } else { Ok(filter) }
    }

    /// Hands the work to every shard and gathers what they say.
    async fn ask(&self, work: PushRequest) -> Result<PushResult, Refusal> {
        let (reply, mut replies) = mpsc::unbounded_channel();
        let work = Arc::new(work);
        {
            let _turn = self.order.lock().await;
            for shard in self.shards.numbers() {
                let mail = Mail::Xxim(Letter::Push { work: work.clone(), reply: reply.clone() });
                self.shards.deliver(shard, mail).await;
            }
        }
        drop(reply);
        let gather = async {
            let mut all = PushResult::default();
            for _ in self.shards.numbers() {
                let part = replies.recv().await?;
                all.success.extend(part.success);
                all.failed.extend(part.failed);
            }
            Some(all)
        };
        tokio::time::timeout(PATIENCE, gather).await.ok().flatten().ok_or(Refusal::NoAnswer)
    }
}

fn filter(request: pb::GetUserConnReq) -> PushFilter {
    let list = |texts: Vec<String>| texts.into_iter().map(String::into_boxed_str).collect();
    PushFilter {
        users: list(request.user_ids),
        platforms: list(request.platforms),
        devices: list(request.devices),
    }
}

#[tonic::async_trait]
impl grpc::conn_service_server::ConnService for Pushes {
    async fn kick_user_conn(
        &self,
        request: Request<pb::KickUserConnReq>,
    ) -> Result<Response<pb::KickUserConnResp>, Status> {
        Ok(Response::new(self.kick(request.into_inner()).await?))
    }

    async fn get_user_conn(
        &self,
        request: Request<pb::GetUserConnReq>,
    ) -> Result<Response<pb::GetUserConnResp>, Status> {
        Ok(Response::new(self.get(request.into_inner()).await?))
    }

    async fn send_msg(
        &self,
        request: Request<pb::SendMsgReq>,
    ) -> Result<Response<pb::SendMsgResp>, Status> {
        Ok(Response::new(self.send(request.into_inner()).await?))
    }

    async fn keep_alive(
        &self,
        _request: Request<pb::KeepAliveReq>,
    ) -> Result<Response<pb::KeepAliveResp>, Status> {
        Ok(Response::new(pb::KeepAliveResp::default()))
    }
}
