//! The socket ring against real sockets on the running kernel. What it says about the kernel in its
//! documentation is shown in `src/engine/ring/kernel.rs`; here is what the shard relies on.
//!
//! Nothing here sleeps: [`support::Bench::event`] waits in the ring, 20 s at the most.
//! [`waiting`] waits in the ring itself.

#![forbid(unsafe_code)]

#[path = "ring/accepting.rs"]
mod accepting;
#[path = "ring/closing.rs"]
mod closing;
#[path = "ring/limits.rs"]
mod limits;
#[path = "ring/receiving.rs"]
mod receiving;
#[path = "ring/sending.rs"]
mod sending;
#[path = "ring/storm.rs"]
mod storm;
#[path = "ring/support.rs"]
mod support;
#[path = "ring/waiting.rs"]
mod waiting;
