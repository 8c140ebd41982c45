//! Hooks: what backends are asked and told about xxim clients that come and go (xxim section 5.2).
//!
//! A login and a departure are told: a bounded number of attempts, with pauses that double and
//! vary, so that a backend that returns is not met by everybody at once; of one connection the next
//! hook is told when the one before was taken or given up. How many wait is bounded by this file; a
//! hook for which there is no room is dropped and counted. What the client sees does not depend on
//! the reason of a failure. Costs: a task and the answer's body per hook.

mod checks;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::hub::ConnId;
use crate::hub::login::Permission;
use crate::outside::Outside;
use crate::outside::callback::{Callback, Failure, Target};
use crate::outside::grpc;
use crate::outside::http_client::HttpClient;
use crate::protocols::xxim::config::upstream::XximHooks;
use crate::protocols::xxim::letters::HookKind;
use crate::protocols::xxim::wire::Identity;
use crate::spare;

/// Longest pause after the first failed attempt of a hook; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The hooks of one process.
pub(super) struct Hooks {
    before_request: Callback,
    told: Arc<Told>,
}

/// What is still to be told, and to whom.
struct Told {
    connected: Callback,
    disconnected: Callback,
    attempts_max: u32,
    /// Places for hooks that wait, and for those that are carried.
    waiting: Arc<Semaphore>,
    under_way: Semaphore,
    /// What waits behind the hook of a connection that is being told.
    behind: Mutex<HashMap<ConnId, VecDeque<Untold>>>,
}

/// A hook that waits, with its place.
struct Untold {
    kind: HookKind,
    body: Bytes,
    place: OwnedSemaphorePermit,
}

impl Hooks {
    /// Fails if the address is not a URL, or if there is no entropy for TLS. Needs the context of a
    /// runtime.
    pub(super) fn new(hooks: &XximHooks, outside: &Outside) -> io::Result<Hooks> {
        let client = match hooks.url.is_some() {
            true => Some(HttpClient::new(outside.settings)?),
            false => None,
        };
        let hook = |name, path, method: &'static str| {
            let target = match &hooks.url {
                None => Target::Unset,
                Some(url) if hooks.grpc => {
                    let channel = grpc::channel(url, hooks.timeout)?;
                    Target::Grpc(channel, PathAndQuery::from_static(method))
                }
                Some(url) => Target::http(name, &format!("{url}{path}"), client.as_ref())?,
            };
            Ok::<_, io::Error>(Callback::new(name, target, hooks.timeout, &outside.registry))
        };
        let before_request = match hooks.before_request {
            true => hook("before_request", "/beforeRequest", "/pb.imService/BeforeRequest")?,
            false => {
                let target = Target::Unset;
                Callback::new("before_request", target, hooks.timeout, &outside.registry)
            }
        };
        let connected = hook("after_connect", "/afterConnect", "/pb.imService/AfterConnect")?;
        let disconnected =
            hook("after_disconnect", "/afterDisconnect", "/pb.imService/AfterDisconnect")?;
        Ok(Hooks {
            before_request,
            told: Arc::new(Told {
                connected,
                disconnected,
                attempts_max: hooks.attempts_max,
                waiting: Arc::new(Semaphore::new(hooks.waiting_max as usize)),
                under_way: Semaphore::new(hooks.under_way_max as usize),
                behind: Mutex::default(),
            }),
        })
    }

    /// Tells that an xxim client has logged in or left, as often as it takes within the limits; of
    /// one connection in order. Returns at once. Needs the context of a runtime.
    pub(super) fn tell(&self, conn: ConnId, kind: HookKind, body: Bytes) {
        let hook = self.told.hook(kind);
        if matches!(hook.target, Target::Unset) {
            return;
        }
        let Ok(place) = self.told.waiting.clone().try_acquire_owned() else {
            return hook.failed(&Failure::NoRoom);
        };
        let untold = Untold { kind, body, place };
        match self.told.behind().entry(conn) {
            Entry::Occupied(behind) => behind.into_mut().push_back(untold),
            Entry::Vacant(entry) => {
                entry.insert(VecDeque::new());
                tokio::spawn(self.told.clone().tell_all(conn, untold));
            }
        }
    }

    /// Asks whether an xxim client may call a method (xxim section 4.1, step 6).
    pub(super) async fn before_request(&self, identity: &Identity, method: &str) -> Permission {
        match checks::ask(&self.before_request, identity, method).await {
            Ok(permission) => permission,
            Err(failure) => {
                self.before_request.failed(&failure);
                Permission::Unavailable
            }
        }
    }
}

impl Told {
    /// Tells of a connection until nothing more waits.
    async fn tell_all(self: Arc<Self>, conn: ConnId, first: Untold) {
        let mut next = Some(first);
        while let Some(Untold { kind, body, place }) = next {
            self.repeat(kind, body).await;
            drop(place);
            let mut all = self.behind();
            next = all.get_mut(&conn).and_then(VecDeque::pop_front);
            if next.is_none() {
                all.remove(&conn);
                spare::emptied(&mut *all);
            }
        }
    }

    /// Tells it until it was taken, will never be, or was tried often enough.
    async fn repeat(&self, kind: HookKind, body: Bytes) {
        let hook = self.hook(kind);
        for attempt in 1..=self.attempts_max {
            let Ok(turn) = self.under_way.acquire().await else { return };
            let result = hook.attempt(body.clone()).await;
            drop(turn);
            let Err(failure) = result else { return };
            hook.failed(&failure);
            if failure.is_final() || attempt == self.attempts_max {
                return;
            }
            tokio::time::sleep(pause(attempt)).await;
        }
    }

    fn hook(&self, kind: HookKind) -> &Callback {
        match kind {
            HookKind::AfterConnect => &self.connected,
            HookKind::AfterDisconnect => &self.disconnected,
        }
    }

    fn behind(&self) -> MutexGuard<'_, HashMap<ConnId, VecDeque<Untold>>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait after so many failed attempts: at least half of what it could be.
fn pause(attempts: u32) -> Duration {
    let factor = 1_u32.checked_shl(attempts - 1).unwrap_or(u32::MAX);
    let longest = FIRST_PAUSE.saturating_mul(factor).min(PAUSE_MAX);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_vary_and_have_an_end() {
        for attempt in 1..100 {
            let longest = FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(20)).min(PAUSE_MAX);
            let pause = pause(attempt);
            assert!(pause <= longest && pause >= longest / 2, "{attempt}: {pause:?}");
        }
    }
}
