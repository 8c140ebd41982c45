//! Who opens which letter.

use crate::engine::queues::QueueMail;
use crate::hub::push::Command;
use crate::lists::letters::{Mail, Reply};
use crate::metrics::DropReason;
use crate::protocols::{connmix, im};
use crate::shard::Shard;
use crate::shard::look::View;

impl Shard {
    /// A message from another thread.
    pub(super) fn open_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Command(command) => _ = self.apply(&command),
            Mail::Abroad(command) => self.for_another_node(|shard| _ = shard.apply(&command)),
            Mail::Part(command) => _ = self.apply(&command),
            Mail::Ask { query, from, reply } => {
                self.tenants.netsvr.find(&mut self.engine, query, from, reply)
            }
            Mail::Tell { command, reply } => self.answer_tell(&command, reply),
            // Who does not wait any more has no use for it.
            Mail::Look { question, from, max, reply } => {
                let Shard { engine, tenants, .. } = self;
                _ = reply.send(View { engine, tenants }.look(&question, from, max));
            }
            Mail::Order { command, reply } => {
                let outcome = self.apply(&command);
                // Who is answered may rely on what follows of it.
                self.settle();
                _ = reply.send(outcome);
            }
            Mail::Replied { number, reply: Reply::Outcome(part) } => self.outcome_of(number, part),
            Mail::Replied { number, reply } => {
                self.tenants.netsvr.replied(&mut self.engine, number, reply)
            }
            Mail::Event { from, worker, frame } => self.engine.deliver_event(from, worker, frame),
            Mail::EventsWritten { worker, count } => self.engine.links.written(worker, count),
            Mail::WorkerAdded(worker) => self.engine.links.add(worker),
            Mail::WorkerGone { worker, written } => self.engine.worker_gone(worker, written),
            Mail::Verified { conn, number, verdict } => self.verified(conn, number, verdict),
            Mail::Room(message) => self.dispatch(Command::Room(message)),
            Mail::Nodes(nodes) => self.engine.nodes_changed(nodes),
            Mail::Queue(mail) => self.queue_mail(mail),
            Mail::Netsvr(letter) => self.tenants.netsvr.letter(&mut self.engine, letter),
            Mail::Xxim(letter) => self.tenants.xxim.letter(&mut self.engine, letter),
            Mail::Connmix(connmix::letters::Letter::HttpCalled { conn, answer }) => {
                self.tenants.connmix.http_called(&mut self.engine, conn, answer);
            }
            Mail::Connmix(connmix::letters::Letter::Rendered { number, text }) => {
                self.tenants.api.rendered(&mut self.engine, number, &text);
            }
            Mail::Im(im::letters::Letter::Chat(chat)) => {
                self.tenants.im.order(&mut self.engine, *chat)
            }
            Mail::Certificates { listener, config } => {
                self.engine.listeners[listener].tls = Some(config);
            }
            Mail::Drain(order) => self.drain(*order),
            Mail::Hurry => {
                self.engine.drain.hurry();
                self.see_off();
            }
            Mail::Stay => self.engine.drain.stay(),
            Mail::Stop => self.stop(),
        }
    }

    /// A letter about queues.
    pub(super) fn queue_mail(&mut self, mail: QueueMail) {
        match mail {
            QueueMail::Push { from, topic, messages } => self.engine.pushed(from, &topic, messages),
            QueueMail::Outcome(outcome) => {
                self.engine.dropped(DropReason::QueueRefused, u64::from(outcome.result.is_err()));
                self.engine.queueing.outcomes.push_back(outcome);
            }
            QueueMail::Accepted { topic, count } => self.engine.pushes_accepted(&topic, count),
            QueueMail::Join { consumer, topics } => {
                let joined = self.engine.queueing.queues.join(consumer, &topics);
                self.engine.queue_post(consumer.shard(), QueueMail::Joined { consumer, joined });
            }
            QueueMail::Joined { consumer, joined } => {
                self.tenants.api.queue_joined(&mut self.engine, consumer, joined)
            }
            QueueMail::Start { consumer, window } => {
                self.engine.queueing.queues.start(consumer, window)
            }
            QueueMail::Leave { consumer } => {
                self.engine.queueing.queues.leave(consumer);
                self.engine.queue_post(consumer.shard(), QueueMail::Left { consumer });
            }
            QueueMail::Left { consumer } => self.tenants.api.queue_left(&mut self.engine, consumer),
            QueueMail::Events { home, consumer, events } => {
                events.into_iter().for_each(|event| {
                    self.tenants.api.queue_event(&mut self.engine, home, consumer, event)
                });
            }
            QueueMail::Written { consumer, count } => {
                self.engine.queueing.queues.written(consumer, count)
            }
            QueueMail::Gone { consumer, written } => {
                self.engine.queueing.queues.gone(consumer, written)
            }
            QueueMail::Supplied { topic, messages } => {
                self.engine.queueing.queues.supply(&topic, messages, self.engine.now.ms);
            }
            QueueMail::Settled { topic, count, outcomes } => {
                self.engine.settled(&topic, count, outcomes)
            }
        }
    }

    /// Before the end of a turn: those hear who are to hear of their messages, what waits is given
    /// to consumers, and the letters go out.
    pub(super) fn queue_turn(&mut self) {
        // Rules that go on may push again.
        while let Some(outcome) = self.engine.queueing.outcomes.pop_front() {
            self.tenants.connmix.push_settled(&mut self.engine, outcome);
        }
        self.engine.queue_turn();
    }
}
