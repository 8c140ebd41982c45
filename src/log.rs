//! Logging: the subscriber of the process, and a brake for lines that could repeat without end.
//!
//! Lines go to standard error, as text or as JSON, one per event: a line break in what an event
//! says (an error of a peer, a panic) is shown as `\n`, so that nobody can forge a line. Costs:
//! nothing for a line that the filter rejects; a line that [`Every`] holds back costs one
//! comparison.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

/// The targets of the gateway's events: names of their own, so that the filter of an operator
/// holds wherever the code moves.
pub mod target {
    macro_rules! table {
        ($($name:ident = $text:literal,)+) => {
            $(pub const $name: &str = $text;)+
            /// All of them.
            pub const ALL: &[&str] = &[$($name),+];
        };
    }

    table! {
        GATEWAY = "ringway::gateway",
        LIFE = "ringway::life",
        SHARD = "ringway::shard",
        NETSVR = "ringway::netsvr",
        XXIM = "ringway::xxim",
        CONNMIX = "ringway::connmix",
        IM = "ringway::im",
        LOGIN = "ringway::login",
        SIDECAR = "ringway::sidecar",
        MESH = "ringway::mesh",
        QUEUES = "ringway::queues",
        DEMO = "ringway::demo",
    }
}

/// Why logging could not be set up. The caller prints it and ends the process.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("not a log filter such as `info` or `ringway::shard=debug`: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("logging is set up already: {0}")]
    Taken(Box<dyn std::error::Error + Send + Sync>),
}

/// The client library of NATS says at once, and at any rate, what the mesh says once a second, and
/// shows URLs with passwords in them. It is heard only if the filter names it.
const LOUD: &str = "async_nats";

/// Sends everything that `filter` lets through to standard error. Once per process.
pub fn init(filter: &str, json: bool) -> Result<(), InitError> {
    let named = filter.contains(LOUD);
    let mut filter = EnvFilter::try_new(filter)?;
    if !named {
        filter = filter.add_directive(format!("{LOUD}=off").parse()?);
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| OneLine(io::stderr()))
        .with_ansi(!json && std::io::stderr().is_terminal());
    if json { lines.json().flatten_event(true).try_init() } else { lines.try_init() }
        .map_err(InitError::Taken)
}

/// Keeps each event, which comes in one write, in one line.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        if text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            let mut line = Vec::with_capacity(event.len() + 16);
            for byte in text {
                match byte {
                    b'\n' => line.extend_from_slice(b"\\n"),
                    b'\r' => line.extend_from_slice(b"\\r"),
                    byte => line.push(*byte),
                }
            }
            line.extend_from_slice(&event[text.len()..]);
            self.0.write_all(&line)?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Lets one event through per interval and counts the others.
#[derive(Clone, Debug)]
pub struct Every {
    interval_ms: u64,
    next_ms: u64,
    suppressed: u64,
}

impl Every {
    /// The first event always passes.
    pub const fn new(interval_ms: u64) -> Every {
        Every { interval_ms, next_ms: 0, suppressed: 0 }
    }

    /// Whether an event at `now_ms` (any clock that does not run backwards) may be logged, and if
    /// so, how many were held back since the last one that was.
    pub fn allow(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms < self.next_ms {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.next_ms = now_ms.saturating_add(self.interval_ms);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_per_interval_passes_and_the_rest_is_counted() {
        let mut every = Every::new(1000);
        assert_eq!(every.allow(0), Some(0));
        assert_eq!(every.allow(1), None);
        assert_eq!(every.allow(999), None);
        assert_eq!(every.allow(1000), Some(2));
        assert_eq!(every.allow(1999), None);
        assert_eq!(every.allow(9000), Some(1));
        assert_eq!(every.allow(u64::MAX), Some(0));
    }

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        let forged = "x\r\n2026-01-01 ERROR forged";
        let mut out = OneLine(Vec::new());
        out.write_all(format!("INFO one error={forged}\n").as_bytes()).expect("room");
        out.write_all(b"INFO two\n").expect("room");
        let text = String::from_utf8(out.0).expect("UTF-8");
        assert_eq!(text, "INFO one error=x\\r\\n2026-01-01 ERROR forged\nINFO two\n");
    }

    #[test]
    fn a_bad_filter_is_an_error_with_the_reason() {
        let error = init("ringway=verbose", false).unwrap_err();
        assert!(error.to_string().contains("not a log filter"), "{error}");
    }
}
