//! Ringway: a long-connection gateway for Linux, thread-per-core on io_uring.
//!
//! It terminates WebSocket and TCP clients, knows users, topics and sessions, passes what clients
//! send to backend processes and what backends push to clients.
//!
//! # The life of a message
//!
//! A client's bytes land in a receive buffer of its shard's ring ([`engine::ring`]). The driver
//! ([`engine::driver`]) hands them to the shard ([`shard::Shard`]), which decrypts them if the
//! listener has TLS ([`wire::tls`]), cuts them into messages in place ([`wire::websocket`]) and
//! lets the client's protocol decide ([`protocols`]). A message for a worker is encoded once
//! ([`wire::worker`]), kept until it is written ([`engine::links`]) and put into the outbox of the
//! worker's connection, or mailed ([`mail`]) to the shard that has it.
//!
//! A backend's bytes take the same way; its protocol turns them into commands and questions in
//! words that no protocol owns ([`hub::push`], [`hub::queries`]). Each shard applies a command
//! to its own connections ([`hub`]): the payload is framed once and queued in the outbox of every
//! connection that gets it. At the end of the turn each outbox becomes one send, and all sends one
//! system call.
//!
//! What is not the data path (HTTP callbacks, metrics, admin) happens in the [`sidecar`]. The
//! [`gateway`] lists everything that has a thread, and starts, watches and stops it.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod allocator;
pub mod config;
pub mod ctl;
pub mod demo;
pub mod engine;
pub mod gateway;
pub mod hub;
pub mod import;
pub mod life;
pub mod limits;
pub mod lists;
pub mod log;
pub mod machine;
pub mod mail;
pub mod metrics;
pub mod outside;
pub mod patience;
pub mod pem;
pub mod protocols;
pub mod rsa_keys;
pub mod shard;
pub mod sidecar;
pub mod sim;
pub mod spare;
pub mod tls_files;
pub mod wire;
