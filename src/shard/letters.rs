//! Who opens which mail.

use crate::hub::push::Command;

use crate::metrics::DropReason;
use crate::shard::Shard;
use crate::shard::queues::QueueMail;

use crate::shard::mailbox::{Mail, Reply};

impl Shard {
    /// A message from another thread.
    pub(super) fn open_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Command(command) => _ = self.apply(&command),
            Mail::Abroad(command) => {
                self.for_another_node(|shard| _ = shard.apply(&command));
            }
            Mail::Part(command) => _ = self.apply(&command),
            Mail::Tell { command, reply } => self.answer_tell(&command, reply),
            Mail::Replied { number, reply: Reply::Outcome(part) } => self.told(number, part),
            Mail::Event { from, worker, frame } => self.engine.deliver_event(from, worker, frame),
            Mail::EventsWritten { worker, count } => self.engine.links.written(worker, count),
            Mail::WorkerAdded(worker) => self.engine.links.add(worker),
            Mail::WorkerGone { worker, written } => self.engine.worker_gone(worker, written),
            Mail::Queue(mail) => self.queue_mail(mail),
            Mail::Rendered { number, text } => self.api.rendered(&mut self.engine, number, &text),
            Mail::Chat(chat) => self.im.order(&mut self.engine, *chat),
            Mail::Verified { conn, number, verdict } => self.verified(conn, number, verdict),
            Mail::HttpCalled { conn, answer } => {
                self.connmix.http_called(&mut self.engine, conn, answer)
            }
            Mail::Nodes(nodes) => self.engine.nodes_changed(nodes),
            Mail::Room(message) => self.dispatch(Command::Room(message)),
            Mail::Certificates { listener, config } => {
                self.engine.listeners[listener].tls = Some(config);
            }
            Mail::Drain => self.drain(),
            Mail::Stop => self.stop(),
            mail => self.open_netsvr_mail(mail),
        }
    }

    fn open_netsvr_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Ask { query, from, reply } => {
                self.netsvr.find(&mut self.engine, query, from, reply)
            }
            Mail::Replied { number, reply } => self.netsvr.replied(&mut self.engine, number, reply),
            Mail::Made { number, made } => self.netsvr.made(&mut self.engine, number, made),
            Mail::AskRates { from, number } => {
                self.netsvr.answer_rates(&mut self.engine, from, number)
            }
            Mail::Rates { number, rates } => {
                self.netsvr.rates_answered(&mut self.engine, number, &rates)
            }
            Mail::WorkerLeaving { worker } => self.netsvr.worker_leaving(&mut self.engine, worker),
            Mail::WorkerLeft { worker } => self.netsvr.worker_left(&mut self.engine, worker),
            Mail::Unregister { from, number, worker } => {
                self.netsvr.unregister(&mut self.engine, from, number, worker)
            }
            Mail::Unregistered { number } => self.netsvr.unregistered(&mut self.engine, number),
            Mail::Opened { conn, verdict } => self.netsvr.verdict(&mut self.engine, conn, verdict),
            Mail::ClosedCallback { number } => self.netsvr.close_told(&mut self.engine, number),
            mail => self.open_xxim_mail(mail),
        }
    }

    fn open_xxim_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Logins { from } => self.xxim.tell_logins(&mut self.engine, from),
            Mail::UpstreamAnswered { conn, number, result } => {
                self.xxim.answered(&mut self.engine, conn, number, &result);
            }
            Mail::Unwrapped { conn, number, seeds } => {
                self.xxim.unwrapped(&mut self.engine, conn, number, seeds)
            }
            Mail::XximPush { work, reply } => {
                let pushed = self.xxim.push(&mut self.engine, &work);
                // Nobody waits any more if it fails.
                let _ = reply.send(pushed);
            }
            Mail::XximChecked { conn, number, permission } => {
                self.xxim.checked(&mut self.engine, conn, number, permission);
            }
            Mail::XximClaim { triple, conn, order } => {
                self.xxim.claim_from(&mut self.engine, triple, conn, order)
            }
            Mail::XximClaimed { triple, conn, held } => {
                self.xxim.claimed(&mut self.engine, &triple, conn, held)
            }
            Mail::XximDisplaced { triple, conn } => {
                self.xxim.displaced(&mut self.engine, &triple, conn)
            }
            Mail::XximRelease { triple, conn } => self.xxim.release(&mut self.engine, triple, conn),
            mail => debug_assert!(false, "nobody opens {mail:?}"),
        }
    }

    /// A letter about queues.
    pub(super) fn queue_mail(&mut self, mail: QueueMail) {
        match mail {
            QueueMail::Push { from, topic, messages } => self.engine.pushed(from, &topic, messages),
            QueueMail::Told(outcome) => {
                self.engine.dropped(DropReason::QueueRefused, u64::from(outcome.result.is_err()));
                self.engine.queueing.outcomes.push_back(outcome);
            }
            QueueMail::Accepted { topic, count } => self.engine.pushes_accepted(&topic, count),
            QueueMail::Join { consumer, topics } => {
                let joined = self.engine.queueing.queues.join(consumer, &topics);
                self.engine.queue_post(consumer.shard(), QueueMail::Joined { consumer, joined });
            }
            QueueMail::Joined { consumer, joined } => {
                self.api.queue_joined(&mut self.engine, consumer, joined)
            }
            QueueMail::Start { consumer, window } => {
                self.engine.queueing.queues.start(consumer, window)
            }
            QueueMail::Leave { consumer } => {
                self.engine.queueing.queues.leave(consumer);
                self.engine.queue_post(consumer.shard(), QueueMail::Left { consumer });
            }
            QueueMail::Left { consumer } => self.api.queue_left(&mut self.engine, consumer),
            QueueMail::Events { home, consumer, events } => {
                events.into_iter().for_each(|event| {
                    self.api.queue_event(&mut self.engine, home, consumer, event)
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
            QueueMail::Settled { topic, count, told } => self.engine.settled(&topic, count, told),
        }
    }

    /// Before the end of a turn: those hear who are to hear of their messages, what waits is given
    /// to consumers, and the letters go out.
    pub(super) fn queue_turn(&mut self) {
        // Rules that go on may push again.
        while let Some(outcome) = self.engine.queueing.outcomes.pop_front() {
            self.connmix.push_told(&mut self.engine, outcome);
        }
        self.engine.queue_turn();
    }
}
