//! How long ago each shard had its last turn, on `/metrics`.

use super::Life;
use crate::metrics::{Registry, rows};

/// Has it shown for these threads, in the order of the shards.
pub fn show(life: &Life, registry: &Registry, shards: impl Iterator<Item = String>) {
    let life = life.clone();
    let gauge = |shard: usize| registry.gauge(&rows::TURN_AGE, &[("shard", &shard.to_string())]);
    let gauges: Vec<_> = shards.enumerate().map(|(shard, name)| (name, gauge(shard))).collect();
    registry.before_render(move || {
        for (name, gauge) in &gauges {
            gauge.set(life.age(name).unwrap_or_default());
        }
    });
}
