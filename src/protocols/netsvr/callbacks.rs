//! HTTP callbacks of this shard (netsvr section 7): how many are under way, and what waits for
//! them.
//!
//! The sidecar makes the requests; here is only the bound on how many it gets at a time. Callbacks
//! at open wait with their connection; those of connections that have left are forgotten before
//! they become many. Callbacks at close outlive their connection, so their number is bounded too,
//! and beyond it the callback is left out (and counted) rather than the event.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::engine::links::Event;
use crate::hub::ConnId;
use crate::protocols::netsvr::config::NetsvrCustomer;
use crate::protocols::netsvr::letters::ServiceRequest;
use crate::spare::Look;

/// The callbacks of one shard.
#[derive(Debug)]
pub struct Callbacks {
    under_way_max: usize,
    closes_max: usize,
    under_way: usize,
    queue: VecDeque<ServiceRequest>,
    /// How many of the queue are callbacks at open.
    opens: usize,
    /// Close events that are told to a worker when their callback is over.
    closes: HashMap<u64, (Event, Option<ConnId>)>,
    number: u64,
}

impl Callbacks {
    /// Nothing under way.
    pub fn new(settings: &NetsvrCustomer) -> Callbacks {
        Callbacks {
            under_way_max: settings.callbacks_max as usize,
            closes_max: settings.close_callbacks_max as usize,
            under_way: 0,
            queue: VecDeque::new(),
            opens: 0,
            closes: HashMap::new(),
            number: 0,
        }
    }

    /// Asks whether a connection may be opened.
    pub fn open(&mut self, conn: ConnId, body: Bytes) {
        self.opens += 1;
        self.queue.push_back(ServiceRequest::OnOpen { conn, body });
    }

    /// Callbacks at open that wait.
    pub fn opens(&self) -> usize {
        self.opens
    }

    /// Forgets the callbacks at open that wait, except those that are still wanted.
    pub fn retain_opens(&mut self, wanted: impl Fn(ConnId) -> bool) {
        self.queue.retain(|request| match request {
            ServiceRequest::OnOpen { conn, .. } => wanted(*conn),
            _ => true,
        });
        let open = |request: &&ServiceRequest| matches!(request, ServiceRequest::OnOpen { .. });
        self.opens = self.queue.iter().filter(open).count();
    }

    /// Tells that a connection was closed; [`Callbacks::take_close`] gives the event back. With too
    /// many waiting it comes back at once.
    pub fn close(
        &mut self,
        shard: u8,
        body: Bytes,
        event: Event,
        sticky: Option<ConnId>,
    ) -> Result<(), Event> {
        if self.closes.len() >= self.closes_max {
            return Err(event);
        }
        self.number += 1;
        self.closes.insert(self.number, (event, sticky));
        self.queue.push_back(ServiceRequest::OnClose { shard, number: self.number, body });
        Ok(())
    }

    /// The event whose callback is over.
    pub fn take_close(&mut self, number: u64) -> Option<(Event, Option<ConnId>)> {
        self.closes.remove(&number)
    }

    /// One callback is over.
    pub fn done(&mut self) {
        self.under_way -= 1;
    }

    /// The next request to hand to the sidecar, if its turn has come.
    pub fn next(&mut self) -> Option<ServiceRequest> {
        if self.under_way >= self.under_way_max {
            return None;
        }
        let request = self.queue.pop_front()?;
        self.under_way += 1;
        self.opens -= matches!(request, ServiceRequest::OnOpen { .. }) as usize;
        Some(request)
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.queue);
        look.at(&mut self.closes);
    }

    /// Callbacks that wait or are under way.
    pub fn len(&self) -> usize {
        self.queue.len() + self.under_way.max(self.closes.len())
    }

    /// Whether no callback waits or is under way.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.under_way == 0
    }
}
