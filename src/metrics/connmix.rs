//! Families under the names of connmix (connmix section 8.3), for its dashboards: sums over the
//! shards of what is counted under names of our own.

use std::fmt::Write;

use super::{Row, rows};

/// A family and its parts: labels and our families whose sum it is.
type Family = (Row, &'static [(&'static str, &'static str)]);

const FAMILIES: [Family; 7] = [
    (rows::CONNMIX_CHANNELS, &[("", "ringway_topics")]),
    (rows::CONNMIX_CLIENTS, &[("", "ringway_clients")]),
    (rows::CONNMIX_NODES, &[("", "ringway_mesh_nodes")]),
    (rows::CONNMIX_SERVER_CLIENTS, &[("", "ringway_connmix_clients")]),
    (
        rows::CONNMIX_READ,
        &[
            ("{protocol=\"socket\"}", "ringway_connmix_socket_messages_received_total"),
            ("{protocol=\"websocket\"}", "ringway_connmix_websocket_messages_received_total"),
        ],
    ),
    (
        rows::CONNMIX_SEND_ERRORS,
        &[
            ("{protocol=\"socket\"}", "ringway_connmix_socket_messages_failed_total"),
            ("{protocol=\"websocket\"}", "ringway_connmix_websocket_messages_failed_total"),
        ],
    ),
    (
        rows::CONNMIX_SENT,
        &[
            ("{protocol=\"socket\"}", "ringway_connmix_socket_messages_sent_total"),
            ("{protocol=\"websocket\"}", "ringway_connmix_websocket_messages_sent_total"),
        ],
    ),
];

/// Appends all of them to a page that has our own families.
pub(super) fn render(page: &mut String) {
    let mut out = String::new();
    for (Row { name, kind, help, .. }, parts) in FAMILIES {
        let kind = kind.name();
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, family) in parts {
            // Other nodes are counted there.
            let own = u64::from(*family == "ringway_mesh_nodes");
            let _ = writeln!(out, "{name}{labels} {}", sum(page, family) + own);
        }
        out.push('\n');
    }
    page.push_str(&out);
}

/// The sum of a family over its lines.
fn sum(page: &str, family: &str) -> u64 {
    let of_family = |line: &&str| {
        let rest = line.strip_prefix(family);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    let values = page.lines().filter(of_family).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn the_parts_are_families_of_ours() {
        for (_, family) in FAMILIES.iter().flat_map(|(_, parts)| parts.iter()) {
            assert!(Registry::rows().any(|row| row.name == *family), "{family}");
        }
    }
}
