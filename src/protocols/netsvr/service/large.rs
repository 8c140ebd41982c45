//! The thread that puts large answers to netsvr business processes together.
//!
//! It has less than the priority of the shards, which have better things to do meanwhile. Bound:
//! each shard has one answer here at a time. Costs: two messages between threads per answer.

use std::io;

use crossbeam_channel::{Receiver, Sender};

use crate::life::{Gone, Heart, Phase};
use crate::lists::letters::Mail;
use crate::log::target;
use crate::outside::Outside;
use crate::outside::shards::Shards;
use crate::protocols::netsvr::large::Job;
use crate::protocols::netsvr::letters::Letter;

const THREAD: &str = "answers";
/// Lower than that of the shards (`nice`), but not so low that it waits for all they do.
const PRIORITY: i32 = 5;

/// The way to the thread; it ends with it.
#[derive(Debug)]
pub(super) struct Maker {
    jobs: Sender<Box<Job>>,
    gone: Gone,
}

impl Maker {
    /// Starts the thread.
    pub(super) fn start(outside: &Outside) -> io::Result<Maker> {
        let (sender, jobs) = crossbeam_channel::unbounded();
        let (shards, life) = (outside.shards.clone(), &outside.life);
        life.spawn(THREAD, &[], move |heart| run(&jobs, &shards, &heart))?;
        Ok(Maker { jobs: sender, gone: life.gone(THREAD) })
    }

    /// Hands over what a shard has found.
    pub(super) fn begin(&self, job: Box<Job>) {
        if self.jobs.send(job).is_err() {
            self.gone.notice();
        }
    }
}

fn run(jobs: &Receiver<Box<Job>>, shards: &Shards, heart: &Heart) {
    // Of this thread alone. If it is refused the work is done all the same.
    if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
        tracing::warn!(
            target: target::SIDECAR,
            %error, "the thread for large answers has the priority of all others"
        );
    }
    heart.enter(Phase::Idle);
    for job in jobs {
        let shard = job.shard;
        shards.hand_over(shard, Mail::Netsvr(Letter::made(*job, || heart.beat())));
        heart.enter(Phase::Idle);
    }
}
