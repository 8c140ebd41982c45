//! Starts the shards.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use super::StartError;
use super::sockets::Bound;
use crate::config::model::Config;
use crate::life::{Heart, Life, shard_name};
use crate::mail::{BoundedSender, MailSender, Mailbox, UnboundedSender};
use crate::metrics::Registry;
use crate::shard::clock::Clock;
use crate::shard::driver::{self, Notice, Parts};
use crate::shard::mailbox::{Mail, MeshRequest, QueueRequest, Request};
use crate::shard::ring::Settings;
use crate::shard::{ListenerSettings, Shard, Shared};

/// What every shard is made with.
#[derive(Clone)]
pub(super) struct Common {
    pub config: Arc<Config>,
    pub shared: Arc<Shared>,
    pub listeners: Vec<ListenerSettings>,
    pub clock: Clock,
    pub shards: Vec<MailSender<Mail>>,
    pub sidecar: BoundedSender<Request>,
    pub mesh: Option<UnboundedSender<MeshRequest>>,
    pub queues: Option<UnboundedSender<QueueRequest>>,
    pub registry: Arc<Registry>,
    pub life: Life,
    pub notices: Sender<Notice>,
}

impl Common {
    /// One shard with everything it needs; on the shard's own thread.
    fn parts(
        self,
        number: usize,
        sockets: Vec<OwnedFd>,
        mailbox: Mailbox<Mail>,
        heart: Heart,
    ) -> Parts {
        let Common { config, shared, clock, shards, sidecar, mesh, queues, registry, .. } = self;
        let notices = self.notices;
        let seed = fastrand::usize(..);
        let count = shards.len();
        Parts {
            cpu: config.runtime.cpus[number],
            clock,
            ring: Settings::of(&config.runtime),
            shard: Shard::new(number as u8, count, config, shared, self.listeners, seed),
            listeners: sockets,
            mailbox,
            shards,
            sidecar,
            mesh,
            queues,
            published: registry.shard(number).expect("one per shard was made"),
            heart,
            notices,
        }
    }
}

/// Starts the thread of every shard.
pub(super) fn spawn_shards(
    common: &Common,
    bound: &mut [Bound],
    mailboxes: Vec<Mailbox<Mail>>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let spawn = |(number, mailbox): (usize, Mailbox<Mail>)| {
        let cpu = common.config.runtime.cpus[number];
        let sockets = bound.iter_mut().filter_map(|(_, sockets)| sockets.pop()).collect();
        let common = common.clone();
        let notices = common.notices.clone();
        let life = common.life.clone();
        let parts = move |heart| common.parts(number, sockets, mailbox, heart);
        driver::spawn(number, cpu, &life, notices, parts).map_err(|error| StartError::Thread {
            shard: number,
            cpu,
            reason: error.to_string(),
        })
    };
    mailboxes.into_iter().enumerate().map(spawn).collect()
}

/// Both sides of every shard's mailbox.
pub(super) type Mailboxes = (Vec<MailSender<Mail>>, Vec<Mailbox<Mail>>);

pub(super) fn mailboxes(
    config: &Config,
    shards: usize,
    life: &Life,
) -> Result<Mailboxes, StartError> {
    let messages_max = config.runtime.mailbox_messages_max as usize;
    let mailbox = |number| Mailbox::new(messages_max, life.gone(&shard_name(number)));
    let pairs: io::Result<Vec<_>> = (0..shards).map(mailbox).collect();
    Ok(pairs.map_err(StartError::Mailbox)?.into_iter().unzip())
}
