//! The connmix worker of `ringway demo`: consumes the queue `demo` over `/ws/v1`, as a process with
//! a connmix client library would, and answers through `conn.call`, `mesh.send` and `mesh.publish`.
//!
//! It has a thread of its own with one connection. What follows from one read of events leaves in
//! one write, and nothing is read before that, so nothing grows without a bound. If the connection
//! is lost it is made anew after a pause, as connmix's own clients do.
//!
//! Costs: one thread; per event one JSON document parsed and a few written.

mod chat;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::sleep;

use self::chat::Chat;
use self::socket::Socket;
use crate::log::target;

/// The queue topic that it consumes.
pub const TOPIC: &str = "demo";

const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Starts the worker on a thread of its own. `api` is the address of the gateway's connmix API,
/// which need not listen yet.
///
/// # Errors
/// The thread or its runtime can not be made.
pub fn start(api: SocketAddr) -> io::Result<Worker> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let (stop, mut stopped) = oneshot::channel();
    let thread = thread::Builder::new().name("demo-connmix".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = &mut stopped => {}
                () = run(api) => {}
            }
        });
    })?;
    Ok(Worker { stop: Some(stop), thread: Some(thread) })
}

/// The running worker. Dropping it ends it; events that it has not answered are given up.
#[derive(Debug)]
pub struct Worker {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // If the thread is gone already there is nobody to tell.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(target: target::DEMO, "the demo's connmix worker has panicked");
        }
    }
}

async fn run(api: SocketAddr) {
    loop {
        match serve(api).await {
            Ok(()) => {
                tracing::info!(
                    target: target::DEMO,
                    "the gateway has ended the connmix worker's connection"
                )
            }
            Err(error) => {
                tracing::warn!(target: target::DEMO, %error, "the connmix worker is not connected")
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Serves until the gateway ends the connection.
async fn serve(api: SocketAddr) -> io::Result<()> {
    let mut socket = Socket::connect(api, "/ws/v1").await?;
    let mut chat = Chat::default();
    let mut requests = vec![format!(r#"{{"m":"queue.pop","p":{{"t":["{TOPIC}"]}},"i":1}}"#)];
    tracing::info!(
        target: target::DEMO,
        port = api.port(), topic = TOPIC, "connmix worker consumes"
    );
    loop {
        socket.send(&requests).await?;
        requests.clear();
        let open = socket.receive(|text| chat.message(text, &mut requests)).await?;
        if !open {
            return Ok(());
        }
    }
}
