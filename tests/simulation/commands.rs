//! What the backends of a story do.

use bytes::Bytes;
use prost::Message;
use ringway::sim::World;
use ringway::wire::worker::proto::{self, Cmd};

use crate::peers::{Business, Client, Expect, Kind, payload};
use crate::plan::{PAYLOAD_BYTES_MAX, TASKS, WORKERS};
use crate::story::{Due, Push, Story, To};

/// Users and topics that every backend uses, for clients that are not steady.
const SHARED: usize = 3;

fn close(text: &str) -> Vec<u8> {
    [&1008u16.to_be_bytes()[..], text.as_bytes()].concat()
}

impl Story {
    /// A worker that is there before the first client.
    pub fn first_worker(&mut self) {
        let business = self.connect_business(WORKERS);
        self.register(business, if self.plan.whole_masks { 7 } else { 4 });
        self.turns(3);
    }

    pub fn business_action(&mut self) {
        let here: Vec<usize> =
            self.businesses.iter().filter(|b| !b.lost).map(|b| b.number).collect();
        let missing = here.len() < self.plan.businesses_max;
        if here.is_empty() || (missing && self.rng.u8(..8) == 0) {
            let listener = if self.rng.u8(..3) > 0 { WORKERS } else { TASKS };
            let business = self.connect_business(listener);
            if self.rng.u8(..4) > 0 {
                let events = self.events();
                self.register(business, events);
            }
            return;
        }
        let business = here[self.rng.usize(..here.len())];
        match self.rng.u8(..100) {
            0..6 => {
                let events = self.events();
                self.register(business, events);
            }
            6..50 => (0..self.rng.usize(1..5)).for_each(|_| self.push(business)),
            50..78 => (0..self.rng.usize(1..4)).for_each(|_| self.ask(business)),
            78..82 => {
                let netsvr = &self.plan.config.netsvr;
                let text = netsvr.worker.heartbeat_message.clone();
                self.businesses[business].heartbeat(&text);
            }
            82..86 => {
                let one_way = [Cmd::SingleCast, Cmd::TopicPublish, Cmd::ForceOffline];
                let cmd = one_way[self.rng.usize(..one_way.len())];
                self.businesses[business].raw(cmd, b"\x0a\xff");
            }
            _ if self.plan.faults => self.fault(business),
            _ => {}
        }
    }

    fn connect_business(&mut self, listener: usize) -> usize {
        let peer = self.world.connect(listener);
        let number = self.businesses.len();
        self.businesses.push(Business::new(peer, number));
        number
    }

    fn events(&mut self) -> i32 {
        const EVENTS: [i32; 8] = [7, 7, 15, 1, 2, 4, 5, 6];
        match (self.rng.u8(..12), self.plan.whole_masks) {
            (0, _) => 0,
            (1, _) => 8,
            (2, _) => -1,
            (_, true) => 7,
            _ => EVENTS[self.rng.usize(..EVENTS.len())],
        }
    }

    fn register(&mut self, business: usize, events: i32) {
        let business = &mut self.businesses[business];
        if business.mask < 0 {
            // Whether it succeeds again depends on who else ends the registration and when.
            return;
        }
        let code = match events & 7 {
            0 => 2,
            _ if business.mask > 0 => 3,
            _ => 0,
        };
        if code == 0 {
            business.mask = events;
        }
        let message = proto::RegisterReq { events, ..Default::default() };
        business.ask(Cmd::Register, &message, Expect::Registered(code));
    }

    fn fault(&mut self, business: usize) {
        match self.rng.u8(..10) {
            0..4 => self.businesses[business].reading ^= true,
            4 => self.flood(business),
            5..7 => self.unregister(business),
            7..9 => {
                let business = &mut self.businesses[business];
                business.lost = true;
                let written = business.pending.take(&mut self.rng);
                business.pending.take_all();
                self.world.write(business.peer, &written);
                match self.rng.bool() {
                    true => self.world.hang_up(business.peer),
                    false => self.world.reset(business.peer),
                }
            }
            _ => {
                let limit = self.plan.config.netsvr.worker.receive_pack_limit;
                let business = &mut self.businesses[business];
                business.lost = true;
                match self.rng.u8(..4) {
                    0 => business.pending.push(&(limit + 1).to_be_bytes()),
                    1 => business.pending.push(b"\0\0\0\x03abc"),
                    2 => business.pending.push(b"\0\0\0\x04\0\0\0\x01"),
                    _ => business.raw(Cmd::Transfer, b""),
                }
            }
        }
    }

    /// More questions than may be under way at one time, and nobody reads the answers for a while.
    fn flood(&mut self, business: usize) {
        self.businesses[business].reading = false;
        for _ in 0..self.rng.usize(50..150) {
            self.ask_count(business);
        }
        self.push(business);
    }

    /// Ends the registration of some connection whose name is known, or of none.
    fn unregister(&mut self, business: usize) {
        let named: Vec<usize> =
            self.businesses.iter().filter(|b| b.name.is_some()).map(|b| b.number).collect();
        let worker = match named.is_empty() || self.rng.u8(..5) == 0 {
            true => None,
            false => Some(named[self.rng.usize(..named.len())]),
        };
        if let Some(worker) = worker {
            self.businesses[worker].leaves = true;
        }
        let name = worker.and_then(|worker| self.businesses[worker].name.clone());
        let conn_id = name.unwrap_or_else(|| "no such registration".to_owned());
        let message = proto::UnRegisterReq { conn_id };
        self.businesses[business].ask(Cmd::Unregister, &message, Expect::Unregistered(worker));
    }

    /// The next payload of a backend connection; `copies` is how often one client may get it.
    fn payload(&mut self, business: usize, to: To, copies: usize) -> (Bytes, usize) {
        let len = match self.rng.u8(..8) {
            0 => self.rng.usize(..PAYLOAD_BYTES_MAX - 40),
            _ if self.plan.fat => PAYLOAD_BYTES_MAX / 2 + self.rng.usize(..PAYLOAD_BYTES_MAX / 4),
            1 => 250 + self.rng.usize(..10),
            _ => self.rng.usize(..60),
        };
        let sender = &mut self.businesses[business];
        let seq = sender.pushes;
        sender.pushes += 1;
        self.pushes.insert((business, seq), Push { to, copies, delayed: false });
        (Bytes::from(payload('p', business, seq, len)), seq)
    }

    fn due(&mut self, business: usize, seq: usize, client: usize, copies: usize) {
        if self.clients[client].steady && self.is_open(client) && copies > 0 {
            self.dues.push(Due { client, push: (business, seq), copies });
        }
    }

    /// Clients that have an id, of whatever kind and state.
    fn targets(&mut self) -> Vec<usize> {
        let world: &World = &self.world;
        let known = |client: &&Client| world.socket(client.peer).id.is_some();
        let mut known: Vec<usize> =
            self.clients.iter().filter(known).map(|client| client.number).collect();
        if self.plan.fat {
            known.drain(..known.len().saturating_sub(4));
        }
        self.rng.shuffle(&mut known);
        known.truncate(self.rng.usize(1..5));
        known
    }

    fn uniq_ids(&self, clients: &[usize]) -> Vec<String> {
        clients.iter().filter_map(|&client| self.uniq_id(client)).collect()
    }

    fn push(&mut self, business: usize) {
        match self.rng.u8(..100) {
            0..25 => self.cast_to_one(business),
            25..35 => self.cast_to_several(business),
            35..42 => self.cast_bulk(business),
            42..52 => self.cast_to_all(business),
            52..60 => self.cast_to_user(business),
            60..72 => self.change(business),
            72..88 => self.topic(business),
            88..90 => self.spare(business),
            _ => self.send_away(business),
        }
    }

    fn cast_to_one(&mut self, business: usize) {
        let Some(&client) = self.targets().first() else { return };
        let (data, seq) = self.payload(business, To::Clients(vec![client]), 1);
        let uniq_id = self.uniq_id(client).unwrap_or_default();
        self.businesses[business].command(Cmd::SingleCast, &proto::SingleCast { uniq_id, data });
        self.due(business, seq, client, 1);
    }

    fn cast_to_several(&mut self, business: usize) {
        let mut clients = self.targets();
        // One that is listed twice gets it twice.
        let twice = clients.first().copied().filter(|_| self.rng.u8(..4) == 0);
        clients.extend(twice);
        let (data, seq) = self.payload(business, To::Clients(clients.clone()), 2);
        let uniq_ids = self.uniq_ids(&clients);
        self.businesses[business].command(Cmd::Multicast, &proto::Multicast { uniq_ids, data });
        for (place, &client) in clients.iter().enumerate() {
            if !clients[..place].contains(&client) {
                let copies = clients.iter().filter(|other| **other == client).count();
                self.due(business, seq, client, copies);
            }
        }
    }

    fn cast_bulk(&mut self, business: usize) {
        let clients = self.targets();
        let one_to_many = self.rng.bool();
        let clients = if one_to_many { &clients[..clients.len().min(1)] } else { &clients };
        if clients.is_empty() {
            return;
        }
        let count = if one_to_many { 3 } else { clients.len() };
        let mut data = Vec::new();
        for place in 0..count {
            let client = clients[place.min(clients.len() - 1)];
            let (bytes, seq) = self.payload(business, To::Clients(vec![client]), 1);
            self.due(business, seq, client, 1);
            data.push(bytes);
        }
        let uniq_ids = self.uniq_ids(clients);
        let message = proto::SingleCastBulk { uniq_ids, data };
        self.businesses[business].command(Cmd::SingleCastBulk, &message);
    }

    fn cast_to_all(&mut self, business: usize) {
        let (data, seq) = self.payload(business, To::Anyone, 1);
        self.businesses[business].command(Cmd::Broadcast, &proto::Broadcast { data });
        (0..self.clients.len()).for_each(|client| self.due(business, seq, client, 1));
    }

    fn cast_to_user(&mut self, business: usize) {
        let number = self.rng.usize(..SHARED);
        let customer_id = match self.rng.bool() {
            true => self.businesses[business].own("user", number),
            false => format!("user {number}"),
        };
        let (data, seq) = self.payload(business, To::Anyone, 1);
        for client in 0..self.clients.len() {
            let Client { owner, known, .. } = &self.clients[client];
            let copies = (*owner == Some(business) && known.user == customer_id) as usize;
            self.due(business, seq, client, copies);
        }
        if self.rng.bool() {
            let message = proto::SingleCastByCustomerId { customer_id, data };
            self.businesses[business].command(Cmd::SingleCastByCustomerId, &message);
        } else {
            // Listed twice it still comes once.
            let customer_ids = vec![customer_id.clone(), customer_id];
            let message = proto::MulticastByCustomerId { customer_ids, data };
            self.businesses[business].command(Cmd::MulticastByCustomerId, &message);
        }
    }

    /// A client that this backend connection may change, and whether it does so alone.
    fn subject(&mut self, business: usize) -> Option<(usize, bool)> {
        let client = *self.targets().first()?;
        if !self.clients[client].steady {
            return Some((client, false));
        }
        let open = self.is_open(client);
        let client = &mut self.clients[client];
        // Before it is open nobody can tell whether a command is too early.
        let mine = open && *client.owner.get_or_insert(business) == business;
        mine.then_some((client.number, true))
    }

    /// Names that only this backend connection uses, or shared ones.
    fn names(&mut self, business: usize, what: &str, own: bool) -> Vec<String> {
        let count = self.rng.usize(1..3);
        let mut names = Vec::new();
        for _ in 0..count {
            let number = self.rng.usize(..SHARED);
            names.push(match own {
                true => self.businesses[business].own(what, number),
                false => format!("{what} {number}"),
            });
        }
        names
    }

    fn change(&mut self, business: usize) {
        let Some((client, own)) = self.subject(business) else { return };
        let (data, seq) = self.payload(business, To::Clients(vec![client]), 1);
        self.due(business, seq, client, 1);
        let uniq_id = self.uniq_id(client).unwrap_or_default();
        let chances = self.rng.u8(..8);
        let [session, user, topics] = [1, 2, 4].map(|bit| chances & bit != 0);
        if self.rng.u8(..4) == 0 {
            let message = proto::ConnInfoDelete {
                uniq_id,
                del_session: session,
                del_customer_id: user,
                del_topic: topics,
                data,
            };
            self.businesses[business].command(Cmd::ConnInfoDelete, &message);
            let known = &mut self.clients[client].known;
            let _ = session.then(|| known.session.clear());
            let _ = user.then(|| known.user.clear());
            let _ = topics.then(|| known.topics.clear());
            return;
        }
        let first = |names: Vec<String>| names.into_iter().next().unwrap_or_default();
        let some = |story: &mut Story, wanted: bool, what: &str| match wanted {
            true => story.names(business, what, own),
            false => Vec::new(),
        };
        let message = proto::ConnInfoUpdate {
            uniq_id,
            new_session: first(some(self, session, "session")),
            new_customer_id: first(some(self, user, "user")),
            new_topics: some(self, topics, "topic"),
            data,
        };
        self.businesses[business].command(Cmd::ConnInfoUpdate, &message);
        let known = &mut self.clients[client].known;
        if session {
            known.session = message.new_session;
        }
        if user {
            known.user = message.new_customer_id;
        }
        if topics {
            known.topics = message.new_topics.into_iter().collect();
        }
    }

    fn topic(&mut self, business: usize) {
        match self.rng.u8(..10) {
            0..4 => self.subscribe(business),
            4..5 => self.delete_topics(business),
            _ => self.publish(business),
        }
    }

    fn subscribe(&mut self, business: usize) {
        let Some((client, own)) = self.subject(business) else { return };
        let topics = self.names(business, "topic", own);
        let (data, seq) = self.payload(business, To::Clients(vec![client]), 1);
        self.due(business, seq, client, 1);
        let uniq_id = self.uniq_id(client).unwrap_or_default();
        let joins = self.rng.u8(..4) > 0;
        let known = &mut self.clients[client].known;
        if joins {
            known.topics.extend(topics.iter().cloned());
            let message = proto::TopicSubscribe { uniq_id, topics, data };
            self.businesses[business].command(Cmd::TopicSubscribe, &message);
        } else {
            topics.iter().for_each(|topic| _ = known.topics.remove(topic));
            let message = proto::TopicUnsubscribe { uniq_id, topics, data };
            self.businesses[business].command(Cmd::TopicUnsubscribe, &message);
        }
    }

    fn delete_topics(&mut self, business: usize) {
        let own = self.rng.bool();
        let topics = self.names(business, "topic", own);
        let (data, seq) = self.payload(business, To::Anyone, 1);
        for client in 0..self.clients.len() {
            if self.clients[client].owner == Some(business) {
                let known = &mut self.clients[client].known.topics;
                let lost = topics.iter().filter(|topic| known.remove(*topic)).count();
                self.due(business, seq, client, lost.min(1));
            }
        }
        let message = proto::TopicDelete { topics, data };
        self.businesses[business].command(Cmd::TopicDelete, &message);
    }

    fn publish(&mut self, business: usize) {
        let own = self.rng.u8(..3) > 0;
        let topics = self.names(business, "topic", own);
        if self.rng.u8(..4) == 0 {
            // One topic and several payloads, in order.
            let topics = vec![topics[0].clone()];
            let data = (0..3).map(|_| self.published(business, &topics)).collect();
            let message = proto::TopicPublishBulk { topics, data };
            return self.businesses[business].command(Cmd::TopicPublishBulk, &message);
        }
        let data = self.published(business, &topics);
        let message = proto::TopicPublish { topics, data };
        self.businesses[business].command(Cmd::TopicPublish, &message);
    }

    fn published(&mut self, business: usize, topics: &[String]) -> Bytes {
        let (data, seq) = self.payload(business, To::Anyone, topics.len());
        for client in 0..self.clients.len() {
            let Client { owner, known, .. } = &self.clients[client];
            let member = |topic: &&String| known.topics.contains(*topic);
            let copies = topics.iter().filter(member).count();
            let mine = *owner == Some(business);
            self.due(business, seq, client, if mine { copies } else { 0 });
        }
        data
    }

    /// Clients that have a session or a user stay when guests are sent away.
    fn spare(&mut self, business: usize) {
        let known = |client: &Client| {
            let guest = client.known.session.is_empty() && client.known.user.is_empty();
            client.owner == Some(business) && !guest
        };
        let Some(client) = self.any_client(known) else { return };
        let (data, _) = self.payload(business, To::Clients(Vec::new()), 0);
        let uniq_ids = self.uniq_ids(&[client]);
        let message = proto::ForceOfflineGuest { uniq_ids, delay: 0, data };
        self.businesses[business].command(Cmd::ForceOfflineGuest, &message);
    }

    fn send_away(&mut self, business: usize) {
        let mut clients = self.targets();
        clients.retain(|&client| !self.clients[client].steady);
        let (data, seq) = self.payload(business, To::Clients(clients.clone()), 1);
        let uniq_ids = self.uniq_ids(&clients);
        let delay = if self.rng.bool() { self.rng.i32(-1..4) } else { 0 };
        let text = match self.rng.u8(..3) {
            0 => {
                let message = proto::ForceOffline { uniq_ids, data };
                self.businesses[business].command(Cmd::ForceOffline, &message);
                "forceOffline"
            }
            1 => {
                // Steady clients have no user of this name.
                let customer_ids = vec![format!("user {}", self.rng.usize(..SHARED))];
                if let Some(push) = self.pushes.get_mut(&(business, seq)) {
                    push.to = To::Anyone;
                }
                let message = proto::ForceOfflineByCustomerId { customer_ids, data };
                self.businesses[business].command(Cmd::ForceOfflineByCustomerId, &message);
                // It may reach clients that come after it was written.
                return;
            }
            _ => {
                if let Some(push) = self.pushes.get_mut(&(business, seq)) {
                    push.delayed = delay > 0;
                }
                let message = proto::ForceOfflineGuest { uniq_ids, delay, data };
                self.businesses[business].command(Cmd::ForceOfflineGuest, &message);
                "forceOfflineGuest"
            }
        };
        clients.iter().for_each(|&client| self.clients[client].closes.push(close(text)));
    }

    fn ask(&mut self, business: usize) {
        match self.rng.u8(..10) {
            0..2 => self.ask_online(business),
            2..4 => self.ask_info(business),
            4..6 => self.ask_members(business),
            6..8 => self.ask_anything(business),
            8 => self.ask_count(business),
            _ => self.ask_nonsense(business),
        }
    }

    fn ask_online(&mut self, business: usize) {
        let targets = self.targets();
        let steady = |client: &usize| self.clients[*client].steady && self.is_open(*client);
        let clients: Vec<usize> = targets.iter().copied().filter(steady).collect();
        let mut asked = self.uniq_ids(&targets);
        asked.extend(asked.first().cloned());
        asked.extend(["", "7f0000011234", "no uniqId at all"].map(str::to_owned));
        let message = proto::CheckOnlineReq { uniq_ids: asked.clone() };
        let expect = Expect::Online { asked, clients };
        self.businesses[business].ask(Cmd::CheckOnline, &message, expect);
    }

    fn ask_info(&mut self, business: usize) {
        let mine = |client: &Client| client.owner == Some(business);
        let Some(client) = self.any_client(mine) else { return };
        let message = proto::ConnInfoReq {
            uniq_ids: self.uniq_ids(&[client]),
            req_session: true,
            req_customer_id: true,
            req_topic: true,
        };
        let known = self.clients[client].known.clone();
        let expect = Expect::Info { client, known };
        self.businesses[business].ask(Cmd::ConnInfo, &message, expect);
    }

    fn ask_members(&mut self, business: usize) {
        let number = self.rng.usize(..SHARED);
        let topic = self.businesses[business].own("topic", number);
        let member = |client: &&Client| client.known.topics.contains(&topic);
        let clients = self.clients.iter().filter(member).map(|client| client.number).collect();
        let message = proto::TopicUniqIdListReq { topics: vec![topic.clone(), String::new()] };
        let expect = Expect::Members { topic, clients };
        self.businesses[business].ask(Cmd::TopicUniqIdList, &message, expect);
    }

    fn ask_count(&mut self, business: usize) {
        let steady = |client: &&Client| client.kind == Kind::Netsvr && client.steady;
        let steady = self.clients.iter().filter(steady).map(|client| client.number);
        let open = steady.filter(|&client| self.is_open(client)).count();
        // Between now and the answer it may be closed only for reading too slowly.
        let slow = self.plan.config.runtime.outbox_bytes_max < 1 << 20;
        let expect = Expect::AtLeast(if slow { 0 } else { open });
        self.businesses[business].ask_raw(Cmd::UniqIdCount, b"", expect);
    }

    fn ask_anything(&mut self, business: usize) {
        let own = self.rng.bool();
        let topics = self.names(business, "topic", own);
        let customer_ids = self.names(business, "user", own);
        let count_all = self.rng.bool();
        let limits = if self.plan.limits { self.rng.i32(-5..50) } else { 0 };
        let (cmd, body) = match self.rng.u8(..12) {
            0 => (Cmd::UniqIdList, Vec::new()),
            1 => (Cmd::CustomerIdList, b"ignored".to_vec()),
            2 => (Cmd::CustomerIdCount, Vec::new()),
            3 => (Cmd::TopicList, Vec::new()),
            4 => (Cmd::TopicCount, Vec::new()),
            5 => (Cmd::TopicUniqIdCount, {
                proto::TopicUniqIdCountReq { topics, count_all }.encode_to_vec()
            }),
            6 => (Cmd::TopicCustomerIdList, {
                proto::TopicCustomerIdListReq { topics }.encode_to_vec()
            }),
            7 => (Cmd::TopicCustomerIdToUniqIdsList, {
                proto::TopicCustomerIdToUniqIdsListReq { topics }.encode_to_vec()
            }),
            8 => (Cmd::TopicCustomerIdCount, {
                proto::TopicCustomerIdCountReq { topics, count_all }.encode_to_vec()
            }),
            9 => (Cmd::ConnInfoByCustomerId, {
                let (req_session, req_uniq_id, req_topic) = (true, true, count_all);
                let message = proto::ConnInfoByCustomerIdReq {
                    customer_ids,
                    req_session,
                    req_uniq_id,
                    req_topic,
                };
                message.encode_to_vec()
            }),
            10 => (Cmd::Metrics, Vec::new()),
            _ => (Cmd::Limit, {
                proto::LimitReq { on_open: limits, on_message: limits }.encode_to_vec()
            }),
        };
        self.businesses[business].ask_raw(cmd, &body, Expect::Any);
    }

    /// A question that can not be read.
    fn ask_nonsense(&mut self, business: usize) {
        const CMDS: [Cmd; 5] =
            [Cmd::CheckOnline, Cmd::ConnInfo, Cmd::TopicUniqIdList, Cmd::Limit, Cmd::Unregister];
        let business = &mut self.businesses[business];
        if self.rng.u8(..4) == 0 {
            return business.ask_raw(Cmd::Register, b"\x08", Expect::Registered(1));
        }
        let cmd = CMDS[self.rng.usize(..CMDS.len())];
        business.ask_raw(cmd, b"\x0a\xff", Expect::Empty);
    }
}
