//! What a peak took and nobody needs any more, given back: all containers of a shard that outlive
//! their peak, in one list. What is not in it gives its room back where it becomes empty, or stays:
//! the places of connections below the last one in use, some 250 bytes each.

use crate::shard::Shard;
use crate::spare::{EVERY_MS, Look};

impl Shard {
    /// Has a look if it is time for one.
    pub(super) fn look_for_spare(&mut self) {
        if self.engine.now.ms >= self.spare_ms {
            self.spare_ms = self.engine.now.ms + EVERY_MS;
            self.give_back(&mut Look::default());
        }
    }

    fn give_back(&mut self, look: &mut Look) {
        self.engine.inflater.give_back();
        self.engine.deflater.iter_mut().for_each(|deflater| deflater.give_back());
        self.engine.wants.give_back(look);
        if self.engine.touched.is_empty() && self.engine.unconfirmed.is_empty() {
            self.engine.conns.give_back(self.engine.now.unix);
        }
        look.at(&mut self.engine.touched);
        look.at(&mut self.engine.unconfirmed);
        look.at(&mut self.engine.waiting);
        look.at(&mut self.engine.ops);
        self.engine.mail.iter_mut().for_each(|queue| look.at(queue));
        look.at(&mut self.engine.jobs);
        for wheel in [&mut self.engine.timers, &mut self.engine.job_timers] {
            wheel.give_back(look);
        }
        self.engine.hub.give_back(look);
        self.engine.links.give_back(look);
        self.engine.tells.give_back(look);
        self.engine.logins.give_back(look);
        self.engine.queueing.give_back(look);
        self.tenants.give_back(look);
        self.engine.mesh.iter_mut().for_each(|mesh| mesh.give_back(look));
    }
}
