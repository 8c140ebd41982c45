//! The list of [`Manners`]: a row for each kind of connection.

use std::time::Duration;

use crate::config::model::Config;
use crate::limits::{
    BUSINESS_ANSWER_BYTES_MAX, CONNMIX_ANSWER_BYTES_MAX, ECHO_MESSAGE_BYTES_MAX, HELD_BYTES_MAX,
    XXIM_HELD_BYTES_MAX,
};
use crate::shard::manners::{Life, Manners, Slow};
use crate::wire::websocket::CloseCodes;

/// A connection that is refused or only waits for its end; also that of a free slot.
pub const LEAVING: u16 = 0;
/// The request that a connection begins with is incomplete.
pub const GREETING: u16 = 1;
pub const OPENING: u16 = 2;
pub const NETSVR: u16 = 3;
pub const ECHO: u16 = 4;
pub const XXIM: u16 = 5;
pub const XXIM_HTTP: u16 = 6;
/// An IM client that has not logged in.
pub const IM_NEW: u16 = 7;
pub const IM: u16 = 8;
pub const WORKER: u16 = 9;
pub const TASK: u16 = 10;
pub const CONNMIX_API: u16 = 11;
/// The first of the connmix servers, by their numbers.
pub const CONNMIX: u16 = 12;

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// All rows.
pub fn rows(config: &Config) -> Vec<Manners> {
    let mut rows = clients(config).to_vec();
    rows.extend(xxim(config));
    rows.extend(im(config));
    rows.extend(backends(config));
    rows.extend(connmix(config));
    rows
}

/// A client of netsvr; the others are described by how they differ.
fn netsvr(config: &Config) -> Manners {
    let customer = &config.netsvr.customer;
    Manners {
        backend: false,
        heard_out: false,
        drains: true,
        stream: false,
        opening: false,
        message_bytes_max: customer.receive_pack_limit,
        close_codes: CloseCodes::Netsvr,
        too_large: None,
        outbox_bytes_max: config.runtime.outbox_bytes_max,
        push_bytes_max: config.runtime.outbox_bytes_max,
        batched: false,
        held_bytes_max: HELD_BYTES_MAX,
        write_ms: ms(customer.heartbeat_interval),
        silence_ms: ms(customer.heartbeat_interval),
        pings: false,
        life: Life::Messages,
        slow: Slow::Close,
        count: None,
    }
}

fn clients(config: &Config) -> [Manners; 5] {
    let leaving = Manners { close_codes: CloseCodes::Registered, ..netsvr(config) };
    let greeting = Manners { silence_ms: 0, ..leaving.clone() };
    let opening = Manners { opening: true, ..greeting.clone() };
    let echo = Manners { message_bytes_max: ECHO_MESSAGE_BYTES_MAX, ..leaving.clone() };
    [leaving, greeting, opening, netsvr(config), echo]
}

fn xxim(config: &Config) -> [Manners; 2] {
    let message_bytes_max = config.xxim.message_bytes_max;
    let too_large = format!("read limited at {} bytes", u64::from(message_bytes_max) + 1);
    let http = Manners {
        // Its requests have time limits of their own.
        drains: false,
        message_bytes_max,
        close_codes: CloseCodes::Registered,
        held_bytes_max: XXIM_HELD_BYTES_MAX,
        write_ms: ms(config.xxim.write_timeout),
        silence_ms: 0,
        ..netsvr(config)
    };
    let websocket = Manners {
        drains: true,
        stream: true,
        too_large: Some(too_large.into()),
        life: Life::Frames,
        slow: Slow::Finish,
        ..http.clone()
    };
    [websocket, http]
}

fn im(config: &Config) -> [Manners; 2] {
    let rules = &config.im;
    let member = Manners {
        stream: true,
        message_bytes_max: rules.max_websocket_message,
        close_codes: CloseCodes::Registered,
        // Its responses go on where its notifications end.
        outbox_bytes_max: config.runtime.outbox_bytes_max.max(rules.out_high_water),
        push_bytes_max: rules.out_high_water,
        batched: true,
        write_ms: ms(rules.write_timeout),
        silence_ms: ms(rules.idle_timeout),
        life: Life::Own,
        slow: Slow::Drop,
        ..netsvr(config)
    };
    let silence_ms = ms(rules.login_timeout.min(rules.idle_timeout));
    [Manners { silence_ms, ..member.clone() }, member]
}

fn backends(config: &Config) -> [Manners; 3] {
    let (worker, task) = (&config.netsvr.worker, &config.netsvr.task);
    let business = |write: Duration, silence: Duration| Manners {
        backend: true,
        heard_out: true,
        drains: false,
        close_codes: CloseCodes::Registered,
        outbox_bytes_max: BUSINESS_ANSWER_BYTES_MAX as u32,
        write_ms: ms(write),
        silence_ms: ms(silence),
        life: Life::Own,
        ..netsvr(config)
    };
    let api = &config.connmix.api;
    let connmix_api = Manners {
        heard_out: false,
        message_bytes_max: api.message_bytes_max,
        outbox_bytes_max: CONNMIX_ANSWER_BYTES_MAX as u32,
        pings: true,
        life: Life::Frames,
        ..business(api.write_timeout, api.read_timeout)
    };
    [
        business(worker.send_deadline, worker.read_deadline),
        business(task.send_deadline, task.read_deadline),
        connmix_api,
    ]
}

fn connmix(config: &Config) -> impl Iterator<Item = Manners> {
    config.connmix_servers.iter().map(|server| Manners {
        stream: true,
        message_bytes_max: server.max_message,
        close_codes: CloseCodes::Registered,
        write_ms: ms(server.write_timeout),
        silence_ms: ms(server.read_timeout),
        pings: server.ping,
        life: Life::Frames,
        count: Some(|counters, websocket, sent, failed| {
            if websocket {
                counters.connmix_websocket_sent += sent;
                counters.connmix_websocket_failed += failed;
            } else {
                counters.connmix_socket_sent += sent;
                counters.connmix_socket_failed += failed;
            }
        }),
        ..netsvr(config)
    })
}
