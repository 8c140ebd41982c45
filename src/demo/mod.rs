//! The business process of `ringway demo`: it speaks to the gateway over real TCP, exactly as a
//! process with a netsvr SDK would, and to clients in the demo protocol of netsvr
//! section 13.
//!
//! It has a thread of its own with two connections: one that is registered for all events, one for
//! commands and queries. Queries are pipelined; commands that follow from one read of events leave
//! in one write. Nothing grows without a bound: while the gateway does not take commands or does
//! not answer queries, no more events are read, and the gateway's own queue rules apply.
//!
//! If a connection is lost both are made anew after a pause, for as long as it takes.
//!
//! Costs: one thread; per client message one JSON document parsed and one written; system calls per
//! batch of messages.

mod application;
pub mod connmix;
mod link;
mod replies;
mod requests;
mod rooms;
#[cfg(test)]
mod tests;
pub mod xxim;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prost::Message;
use tokio::runtime::Builder;
use tokio::select;
use tokio::sync::oneshot;
use tokio::time::{
    Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until, timeout,
};

use self::application::Application;
pub use self::application::PASSWORD;
use self::link::{Link, invalid, put};
use crate::log::target;
use crate::protocols::netsvr::config::Netsvr;
use crate::wire::worker::Cmd;
use crate::wire::worker::proto as pb;

/// OnOpen, OnClose and OnMessage (netsvr section 4.2).
const ALL_EVENTS: i32 = 7;
/// Bytes of commands that may wait; above, no more events are turned into commands.
const COMMAND_BYTES_MAX: usize = 256 * 1024;
/// Queries that may be under way; above, no more events are turned into queries.
const QUERIES_MAX: usize = 4096;
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
const WORKER_HEARTBEAT: Duration = Duration::from_secs(45);
const TASK_HEARTBEAT: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_secs(3);
/// How long [`Business::stop`] waits for the gateway.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Starts the demo business process on a thread of its own.
///
/// `worker` and `task` are addresses of the gateway's listeners; with generation 5 they may be the
/// same. The heartbeat texts and the generation come from `netsvr`. The gateway need not listen
/// yet.
///
/// # Errors
/// The thread or its runtime can not be made.
pub fn start(worker: SocketAddr, task: SocketAddr, netsvr: &Netsvr) -> io::Result<Business> {
    launch(Process {
        worker,
        task,
        worker_heartbeat: netsvr.worker.heartbeat_message.clone(),
        task_heartbeat: netsvr.task.heartbeat_message.clone(),
        application: Application::new(netsvr.generation),
        registered: Arc::default(),
        retry_pause: RETRY_PAUSE,
    })
}

fn launch(process: Process) -> io::Result<Business> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let (stop, stopped) = oneshot::channel();
    let registered = Arc::clone(&process.registered);
    let thread = thread::Builder::new()
        .name("demo-business".to_owned())
        .spawn(move || runtime.block_on(process.run(stopped)))?;
    Ok(Business { stop: Some(stop), thread: Some(thread), registered })
}

/// The running demo business process. Dropping it is the same as [`Business::stop`].
#[derive(Debug)]
pub struct Business {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    registered: Arc<Registered>,
}

impl Business {
    /// Blocks until the process is registered at the gateway, so that clients that connect from now
    /// on are served. False if that takes longer than `limit`.
    #[must_use]
    pub fn wait_registered(&self, limit: Duration) -> bool {
        let now = self.registered.now.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.registered.changed.wait_timeout_while(now, limit, |now| !*now);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Unregisters, handles the events that are under way, writes what waits and ends the thread.
    /// Takes at most a few seconds if the gateway does not answer.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Business {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // If the thread is gone already there is nobody to tell.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(target: target::DEMO, "the demo business process has panicked");
        }
    }
}

/// Whether the process is registered at the gateway now.
#[derive(Debug, Default)]
struct Registered {
    now: Mutex<bool>,
    changed: Condvar,
}

impl Registered {
    fn set(&self, registered: bool) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = registered;
        self.changed.notify_all();
    }
}

/// What outlives the connections.
struct Process {
    worker: SocketAddr,
    task: SocketAddr,
    worker_heartbeat: Vec<u8>,
    task_heartbeat: Vec<u8>,
    application: Application,
    registered: Arc<Registered>,
    retry_pause: Duration,
}

impl Process {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let connected = select! {
                _ = &mut stop => return,
                connected = self.connect() => connected,
            };
            let error = match connected {
                Ok(mut session) => {
                    self.registered.set(true);
                    let ended = session.serve(&mut self, &mut stop).await;
                    self.registered.set(false);
                    match ended {
                        Ok(()) => return,
                        Err(error) if session.stop_until.is_some() => {
                            tracing::warn!(
                                target: target::DEMO,
                                %error, "demo business did not end in good order"
                            );
                            return;
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let unanswered = self.application.forget_queries();
            // The end of the connection is how a gateway says that it stops.
            if error.kind() == io::ErrorKind::UnexpectedEof {
                tracing::info!(
                    target: target::DEMO,
                    unanswered, "the gateway has ended the demo business's connection"
                );
            } else {
                tracing::warn!(
                    target: target::DEMO,
                    %error, unanswered, "demo business is not connected"
                );
            }
            select! {
                _ = &mut stop => return,
                () = sleep(self.retry_pause) => {}
            }
        }
    }

    /// Connects and registers. The task connection comes first, so that nothing that an event asks
    /// for has to wait.
    async fn connect(&self) -> io::Result<Session> {
        let task = Link::connect(self.task).await?;
        let mut worker = Link::connect(self.worker).await?;
        let conn_id = timeout(REGISTER_TIMEOUT, register(&mut worker)).await??;
        let (worker_port, task_port) = (self.worker.port(), self.task.port());
        tracing::info!(
            target: target::DEMO,
            worker_port, task_port, conn_id, "demo business registered"
        );
        Ok(Session { worker, task, conn_id, stop_until: None, unregistered: false })
    }
}

async fn register(worker: &mut Link) -> io::Result<String> {
    let request = pb::RegisterReq { events: ALL_EVENTS, ..Default::default() };
    let _fits = put(&mut worker.outgoing.buffer, Cmd::Register, &request);
    while !worker.outgoing.buffer.is_empty() {
        worker.outgoing.flush_some().await?;
    }
    let (cmd, body) = loop {
        match worker.incoming.frame()? {
            Some(frame) => break frame,
            None => worker.incoming.fill().await?,
        }
    };
    if cmd != Cmd::Register as u32 {
        return Err(invalid(format!("the gateway answered Register with command {cmd}")));
    }
    let answer = pb::RegisterResp::decode(body).map_err(|error| invalid(error.to_string()))?;
    match answer.code {
        0 => Ok(answer.conn_id),
        code => Err(invalid(format!("registration refused: {} (code {code})", answer.message))),
    }
}

/// A pair of connections on which the process is registered.
struct Session {
    worker: Link,
    task: Link,
    conn_id: String,
    /// Set when the process is to end: until then, all has to be done.
    stop_until: Option<Instant>,
    /// The answer to Unregister has come; it is the last frame of interest on that connection.
    unregistered: bool,
}

impl Session {
    /// Serves until the process has been stopped and everything is done.
    async fn serve(
        &mut self,
        process: &mut Process,
        stop: &mut oneshot::Receiver<()>,
    ) -> io::Result<()> {
        let mut worker_beat = heartbeats(WORKER_HEARTBEAT);
        let mut task_beat = heartbeats(TASK_HEARTBEAT);
        loop {
            self.handle_frames(&mut process.application)?;
            if self.unregistered && self.is_idle(&process.application) {
                return Ok(());
            }
            let read_events = !self.unregistered && self.has_room(&process.application);
            let stopping = self.stop_until.is_some();
            select! {
                _ = &mut *stop, if !stopping => self.unregister(),
                done = self.worker.incoming.fill(), if read_events => done?,
                done = self.task.incoming.fill() => done?,
                done = self.worker.outgoing.flush_some(), if self.worker.has_output() => done?,
                done = self.task.outgoing.flush_some(), if self.task.has_output() => done?,
                _ = worker_beat.tick() => self.worker.outgoing.beat(&process.worker_heartbeat),
                _ = task_beat.tick() => self.task.outgoing.beat(&process.task_heartbeat),
                () = give_up(self.stop_until) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Handles every frame that has arrived, as far as there is room for what follows from it.
    fn handle_frames(&mut self, application: &mut Application) -> io::Result<()> {
        while let Some((cmd, body)) = self.task.incoming.frame()? {
            application.answer(cmd, body, &mut self.task.outgoing.buffer)?;
        }
        while !self.unregistered && self.has_room(application) {
            let Some((cmd, body)) = self.worker.incoming.frame()? else { break };
            if cmd == Cmd::Unregister as u32 {
                self.unregistered = true;
                tracing::info!(
                    target: target::DEMO,
                    conn_id = self.conn_id, "demo business unregistered"
                );
            } else {
                application.event(cmd, body, &mut self.task.outgoing.buffer)?;
            }
        }
        Ok(())
    }

    fn has_room(&self, application: &Application) -> bool {
        self.task.outgoing.buffer.len() < COMMAND_BYTES_MAX && application.pending() < QUERIES_MAX
    }

    fn is_idle(&self, application: &Application) -> bool {
        !self.task.has_output() && application.pending() == 0
    }

    fn unregister(&mut self) {
        let request = pb::UnRegisterReq { conn_id: self.conn_id.clone() };
        let _fits = put(&mut self.worker.outgoing.buffer, Cmd::Unregister, &request);
        self.stop_until = Some(Instant::now() + STOP_TIMEOUT);
    }
}

impl Link {
    fn has_output(&self) -> bool {
        !self.outgoing.buffer.is_empty()
    }
}

fn heartbeats(period: Duration) -> Interval {
    let mut beats = interval_at(Instant::now() + period, period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

async fn give_up(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
