//! How a client leaves: it is in the hub until its end begins, however long its socket stays.
//!
//! Its end begins when its close frame is queued, or, if there is none, when nothing more will be
//! handled of it. From then on no push reaches it, no backend sees it, and its user, its topics and
//! its login are free. Those who are to hear of its end hear of it then, once (netsvr sections 2.8
//! and 6.6).

use crate::shard::Shard;
use crate::shard::conns::Role;

impl Shard {
    /// The connection is no client any more. Does nothing if it was none.
    pub(super) fn leave(&mut self, slot: u32) {
        let Some(departed) = self.engine.hub.remove(slot) else { return };
        match &self.engine.conns[slot].role {
            Role::Netsvr(client) => {
                let worker = client.worker;
                self.netsvr_left(slot, &departed, worker);
            }
            Role::Xxim(_) => self.xxim_left(slot),
            Role::Connmix(_) => self.connmix_left(slot),
            Role::Im(_) => self.im_left(slot),
            role => debug_assert!(false, "{role:?} was a client"),
        }
    }
}
