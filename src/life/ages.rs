//! How long ago each shard had its last turn, on `/metrics`.

use metrics::Unit;

use super::Life;
use crate::metrics::{Kind, Registry, Row};

const TURN_AGE: Row = Row {
    name: "ringway_shard_turn_age_seconds",
    help: "Time since the last turn of the loop began; more than 2 is a shard that stands still",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
};

/// Has it shown for these threads, in the order of the shards.
pub fn show(life: &Life, registry: &Registry, shards: impl Iterator<Item = String>) {
    let life = life.clone();
    let gauge = |shard: usize| registry.gauge(&TURN_AGE, &[("shard", &shard.to_string())]);
    let gauges: Vec<_> = shards.enumerate().map(|(shard, name)| (name, gauge(shard))).collect();
    registry.before_render(move || {
        for (name, gauge) in &gauges {
            gauge.set(life.age(name).unwrap_or_default());
        }
    });
}
