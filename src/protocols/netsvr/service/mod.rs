//! What netsvr has done away from the shards: its HTTP callbacks, and large answers.

mod callbacks;
mod large;

use std::io;
use std::sync::Arc;

use crate::lists::letters::Mail;
use crate::outside::Outside;
use crate::outside::shards::Shards;
use crate::protocols::netsvr::letters::{Letter, ServiceRequest};

pub use callbacks::CallbackSettings;
use callbacks::Caller;
use large::Maker;

/// What carries requests.
pub struct Service {
    caller: Arc<Caller>,
    maker: Maker,
    shards: Shards,
}

impl Service {
    /// Fails if an address is not a URL, or if the process has no thread left.
    pub fn start(callbacks: CallbackSettings, outside: &Outside) -> io::Result<Service> {
        Ok(Service {
            caller: Arc::new(Caller::new(callbacks, outside)?),
            maker: Maker::start(outside)?,
            shards: outside.shards.clone(),
        })
    }

    /// Begins to carry a request. Needs the context of a runtime.
    pub fn begin(&self, request: ServiceRequest) {
        match request {
            ServiceRequest::OnOpen { conn, body } => {
                let caller = self.caller.clone();
                self.shards.answer(conn.shard(), async move {
                    let verdict = caller.on_open(body).await;
                    Mail::Netsvr(Letter::Opened { conn, verdict })
                });
            }
            ServiceRequest::OnClose { shard, number, body } => {
                let caller = self.caller.clone();
                self.shards.answer(shard, async move {
                    caller.on_close(body).await;
                    Mail::Netsvr(Letter::ClosedCallback { number })
                });
            }
            ServiceRequest::Make(job) => self.maker.begin(job),
        }
    }
}
