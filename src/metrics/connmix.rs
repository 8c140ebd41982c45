//! Families under the names of connmix (connmix section 8.3), for its dashboards: sums over the
//! shards of what is counted under names of our own.

use std::fmt::Write;

/// Name, type, help, and the parts: labels and our families whose sum it is.
type Family = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const FAMILIES: [Family; 7] = [
    (
        "connmix_center_registry_channels_total",
        "counter",
        "Topics with a member on this node; one on two shards counts on both",
        &[("", "ringway_topics")],
    ),
    (
        "connmix_center_registry_clients",
        "gauge",
        "Clients of this node, of all protocols",
        &[("", "ringway_clients")],
    ),
    (
        "connmix_center_registry_engine_nodes",
        "gauge",
        "Nodes of the mesh, this one included",
        &[("", "ringway_mesh_nodes")],
    ),
    (
        "connmix_engine_servers_clients",
        "gauge",
        "connmix clients of this node",
        &[("", "ringway_connmix_clients")],
    ),
    (
        "connmix_engine_servers_read_messages_total",
        "counter",
        "Messages from connmix clients",
        &[
            ("{protocol=\"socket\"}", "ringway_connmix_socket_messages_received_total"),
            ("{protocol=\"websocket\"}", "ringway_connmix_websocket_messages_received_total"),
        ],
    ),
    (
        "connmix_engine_servers_send_errors_total",
        "counter",
        "Messages that could not be written to connmix clients",
        &[
            ("{protocol=\"socket\"}", "ringway_connmix_socket_messages_failed_total"),
            ("{protocol=\"websocket\"}", "ringway_connmix_websocket_messages_failed_total"),
        ],
    ),
    (
        "connmix_engine_servers_send_messages_total",
        "counter",
        "Messages written to connmix clients",
        &[
            ("{protocol=\"socket\"}", "ringway_connmix_socket_messages_sent_total"),
            ("{protocol=\"websocket\"}", "ringway_connmix_websocket_messages_sent_total"),
        ],
    ),
];

/// Appends all of them to a page that has our own families.
pub(super) fn render(page: &mut String) {
    let mut out = String::new();
    for (name, kind, help, parts) in FAMILIES {
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
