//! The shards, as one service: they start, drain and end together.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::drain::{End, LOOK_EVERY};
use super::service::{Service, Started};
use super::sockets::listener_tls;
use super::{Common, StartError};
use crate::config::all::Config;
use crate::engine::driver::{self, Notice, Parts};
use crate::engine::ring::Settings;
use crate::life::{Heart, ages, shard_name};
use crate::lists::letters::Mail;
use crate::log::target;
use crate::mail::{MailSender, Mailbox};
use crate::shard::Shard;
use crate::tls_files::TlsFilesError;

/// How long new certificates wait for shards that take no mail.
const RELOAD_TIME: Duration = Duration::from_secs(1);
/// How long a shard may take to listen; none needs a hundredth of it.
const START_TIME: Duration = Duration::from_secs(20);
const NOT_READY: &str = "it does not begin; its CPU may be taken by something else";

struct Shards {
    mail: Vec<MailSender<Mail>>,
    threads: Vec<JoinHandle<()>>,
    notices: Receiver<Notice>,
}

/// Starts them and waits until each of them listens. `sockets` has one of each listener for each
/// shard.
pub(super) fn start(
    common: &Common,
    mailboxes: Vec<Mailbox<Mail>>,
    mut sockets: Vec<Vec<OwnedFd>>,
) -> Started {
    ages::show(&common.life, &common.registry, (0..mailboxes.len()).map(shard_name));
    let (sender, notices) = crossbeam_channel::unbounded();
    let spawn = |(number, mailbox): (usize, Mailbox<Mail>)| {
        let cpu = common.config.runtime.cpus[number];
        let sockets = sockets.iter_mut().filter_map(Vec::pop).collect();
        let (common, life, told) = (common.clone(), common.life.clone(), sender.clone());
        let make = move |heart| parts(common, number, sockets, mailbox, heart, told);
        driver::spawn(number, cpu, &life, sender.clone(), make)
            .map_err(|error| StartError::Thread { shard: number, cpu, reason: error.to_string() })
    };
    let threads: Result<_, _> = mailboxes.into_iter().enumerate().map(spawn).collect();
    let shards = Shards { mail: common.ways.shards.clone(), threads: threads?, notices };
    shards.await_ready()?;
    Ok(Some(Box::new(shards)))
}

/// One shard with everything it needs; on the shard's own thread.
fn parts(
    common: Common,
    number: usize,
    listeners: Vec<OwnedFd>,
    mailbox: Mailbox<Mail>,
    heart: Heart,
    notices: Sender<Notice>,
) -> Parts<Shard> {
    let Common { config, shared, ways, .. } = common;
    let count = ways.shards.len();
    let seed = fastrand::usize(..);
    Parts {
        cpu: config.runtime.cpus[number],
        clock: common.clock,
        ring: Settings::of(&config.runtime),
        machine: Shard::new(number as u8, count, config, shared, common.listeners, seed),
        listeners,
        mailbox,
        ways,
        published: common.registry.shard(number).expect("one per shard was made"),
        heart,
        notices,
    }
}

impl Shards {
    fn await_ready(&self) -> Result<(), StartError> {
        for _ in &self.mail {
            match self.notices.recv_timeout(START_TIME) {
                Ok(Notice::Ready) => {}
                Ok(Notice::Failed(reason)) => return Err(StartError::Shard(reason)),
                Err(_) => return Err(StartError::Shard(NOT_READY.to_owned())),
                other => return Err(StartError::Shard(format!("{other:?}"))),
            }
        }
        Ok(())
    }

    /// Asks all of them for this and waits until each has done it.
    fn carry_out(&self, mail: impl Fn() -> Mail, end: &mut End) {
        for shard in &self.mail {
            end.finished &= shard.send_until(mail(), end.deadline);
        }
        end.finished &= self.await_all(end);
    }

    /// Waits until each has done what it was asked. Returns whether that is so in time.
    fn await_all(&self, end: &mut End) -> bool {
        let mut missing = self.mail.len();
        let rung = end.bell.rung().clone();
        while missing > 0 {
            let patience = end.deadline.saturating_duration_since(Instant::now());
            crossbeam_channel::select! {
                recv(self.notices) -> notice => match notice {
                    Ok(Notice::Drained | Notice::Stopped) => missing -= 1,
                    _ => return false,
                },
                recv(rung) -> _ => {
                    end.hurries();
                    for shard in &self.mail {
                        shard.send_until(Mail::Hurry, end.deadline);
                    }
                },
                default(patience.min(LOOK_EVERY)) => {
                    if patience.is_zero() {
                        return false;
                    }
                    end.tell();
                },
            }
        }
        true
    }
}

impl Service for Shards {
    fn reload(&self, config: &Config) -> Result<(), TlsFilesError> {
        let mut result = Ok(());
        for (listener, settings) in config.listeners.iter().enumerate() {
            match listener_tls(settings) {
                Ok(None) => {}
                Ok(Some(config)) => {
                    let mail = || Mail::Certificates { listener, config: config.clone() };
                    let until = Instant::now() + RELOAD_TIME;
                    let full = |shard: &&MailSender<Mail>| !shard.send_until(mail(), until);
                    let unreached = self.mail.iter().filter(full).count();
                    if unreached > 0 {
                        tracing::error!(
                            target: target::GATEWAY,
                            unreached, "shards that take no mail keep certificates"
                        );
                    }
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// The first round ends when no shard has clients, the second when nothing is left of what they
    /// have told other shards at their end.
    fn drain(&self, end: &mut End) {
        let order = Box::new(end.order.clone());
        self.carry_out(|| Mail::Drain(order.clone()), end);
        self.carry_out(|| Mail::Drain(order.clone()), end);
    }

    fn stop(self: Box<Self>, end: &mut End) {
        self.carry_out(|| Mail::Stop, end);
        if end.finished {
            self.threads.into_iter().for_each(|thread| _ = thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::Life;

    /// What a shard's thread says at its end.
    fn last_word(cpu: usize, make: impl FnOnce(Heart) -> Parts<Shard> + Send + 'static) -> String {
        let (sender, notices) = crossbeam_channel::unbounded();
        let life = Life::default();
        let thread = driver::spawn(7, cpu, &life, sender, make).expect("a thread can be started");
        let _ = thread.join();
        match notices.recv() {
            Ok(Notice::Failed(reason)) => reason,
            other => panic!("no failure: {other:?}"),
        }
    }

    #[test]
    fn a_thread_that_can_not_have_its_executor_is_heard() {
        let reason = last_word(100_000, |_| unreachable!("there is no such CPU"));
        assert!(reason.contains("shard 7 can not be made on CPU 100000"), "{reason}");
    }

    #[test]
    fn a_thread_that_ends_in_a_panic_is_heard() {
        let reason = last_word(0, |_| panic!("on purpose"));
        assert_eq!(reason, "the thread of shard 7 ended in a panic");
    }
}
