//! Threads that decrypt the seeds of xxim clients (xxim section 9.3).
//!
//! They have the lowest priority of the machine, so that any number of handshakes leaves the shards
//! alone: what comes too fast waits. Shards bound how many clients are under way. Costs: two
//! messages between threads per client, beside the decryption itself.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};

use crate::hub::ConnId;
use crate::life::{Gone, Heart, Phase};
use crate::lists::letters::Mail;
use crate::log::target;
use crate::outside::Outside;
use crate::outside::shards::Shards;
use crate::protocols::xxim::letters::Letter;
use crate::protocols::xxim::wire::cipher::Seeds;
use crate::rsa_keys::RsaKey;

/// The lowest priority (`nice`).
const PRIORITY: i32 = 19;

/// What one client has sent.
struct Job {
    conn: ConnId,
    number: u32,
    key: Option<Bytes>,
    iv: Option<Bytes>,
}

/// The way to the threads; they end with it.
#[derive(Debug)]
pub(super) struct Unwrapper {
    jobs: Sender<Job>,
    gone: Gone,
}

impl Unwrapper {
    /// Starts the threads; none without a key.
    pub(super) fn start(
        key: Option<Arc<RsaKey>>,
        threads: u32,
        outside: &Outside,
    ) -> io::Result<Unwrapper> {
        let (sender, jobs) = crossbeam_channel::unbounded();
        for number in 0..threads {
            let Some(key) = key.clone() else { break };
            let (jobs, shards) = (jobs.clone(), outside.shards.clone());
            let name = format!("xxim-rsa-{number}");
            outside.life.spawn(&name, &[], move |heart| run(&jobs, &key, &shards, &heart))?;
        }
        Ok(Unwrapper { jobs: sender, gone: outside.life.gone("xxim-rsa") })
    }

    /// Hands a client's ciphertexts over. Without a key no shard asks.
    pub(super) fn begin(&self, conn: ConnId, number: u32, key: Option<Bytes>, iv: Option<Bytes>) {
        if self.jobs.send(Job { conn, number, key, iv }).is_err() {
            self.gone.notice();
        }
    }
}

fn run(jobs: &Receiver<Job>, key: &RsaKey, shards: &Shards, heart: &Heart) {
    // Of this thread alone. If it is refused the work is done all the same.
    if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
        tracing::warn!(
            target: target::SIDECAR,
            %error, "threads that decrypt keys have the priority of all others"
        );
    }
    heart.enter(Phase::Idle);
    for Job { conn, number, key: sealed_key, iv: sealed_iv } in jobs {
        heart.beat();
        // Both always: which of them was wrong is nobody's business.
        let open = |sealed: Option<Bytes>| match sealed {
            Some(sealed) => key.decrypt(&sealed).map(Some),
            None => Some(None),
        };
        let (seed_key, seed_iv) = (open(sealed_key), open(sealed_iv));
        let seeds = seed_key.zip(seed_iv).map(|(key, iv)| Box::new(Seeds { key, iv }));
        shards.hand_over(conn.shard(), Mail::Xxim(Letter::Unwrapped { conn, number, seeds }));
        heart.enter(Phase::Idle);
    }
}
