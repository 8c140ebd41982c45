//! Requests that a backend must permit (`xxim.hooks.before_request`; xxim section 4.1, step 6).
//!
//! A permission counts for some time for all requests of the connection, until it logs in again or
//! sets its parameters. Invariant: while a backend is asked the connection is not read, so requests
//! keep their order, and what waits is one request and what [`crate::limits`] lets it keep. Costs:
//! a time per connection; per question a copy of the request.

use super::requests::read;
use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::hub::ConnId;
use crate::hub::login::Permission;
use crate::protocols::xxim::letters::ServiceRequest;
use crate::protocols::xxim::rules::forbidden;
use crate::protocols::xxim::wire;

impl super::Xxim {
    /// Has a backend asked about a request.
    pub(crate) fn check(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        request: &wire::ClientRequest<'_>,
    ) {
        let number = self.ask(engine, slot);
        let id = engine.conns.id(slot);
        let Some(conn) = self.xxim(engine, slot) else { return };
        conn.check = Some(wire::request_body(request.req_id, request.method, request.data));
        let (identity, method) = (conn.client.identity().clone(), request.method.into());
        engine.counters.xxim_checks += 1;
        self.outgoing.push_back(ServiceRequest::Check { conn: id, number, identity, method });
    }

    /// The backend has decided, or could not.
    pub(crate) fn checked(
        &mut self,
        engine: &mut Engine,
        id: ConnId,
        number: u32,
        permission: Permission,
    ) {
        let Some(slot) = engine.conns.slot(id) else { return };
        if engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING) || engine.conns[slot].goes() {
            return;
        }
        let config = self.config.clone();
        let now_ms = engine.now.ms;
        let Some(conn) = self.xxim(engine, slot).filter(|conn| conn.number == number) else {
            return;
        };
        let Some(message) = conn.check.take() else { return };
        let step = match permission {
            Permission::Granted => {
                let cache = config.xxim_upstreams.hooks.before_request_cache;
                conn.permitted_ms = now_ms.saturating_add(cache.as_millis() as u64);
                read(&mut conn.client, &message, &config, false)
            }
            other => {
                // It was read before it was asked about.
                let Ok(request) = wire::ClientRequest::parse(&message) else { return };
                let (head, _) = wire::head(request.req_id, request.method);
                forbidden(head, other, &config.xxim)
            }
        };
        self.step(engine, slot, step);
        self.resume(engine, slot);
    }
}
