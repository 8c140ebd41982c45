//! What a panic comes to: one line, and the end of the process, unless a single peer was served.

use std::panic::PanicHookInfo;

use super::peer;
use crate::log::target;

/// Replaces the hook of the process: a panic is one line in the log, and `end` is called, unless it
/// happened while a single peer was served.
pub fn end_by(end: fn()) {
    std::panic::set_hook(Box::new(move |info| {
        let service = peer::served();
        say(info, service);
        if service.is_none() {
            end();
        }
    }));
}

fn say(info: &PanicHookInfo<'_>, service: Option<&'static str>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let place = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("no text").replace('\n', " ");
    let version = env!("CARGO_PKG_VERSION");
    match service {
        None => {
            tracing::error!(
                target: target::LIFE,
                thread, place, panic = message, version, "a thread panicked"
            )
        }
        Some(service) => tracing::error!(
            target: target::LIFE,
            thread,
            place,
            panic = message,
            version,
            service,
            "a task panicked; its peer is gone"
        ),
    }
}
