//! What the simulated stories send, held against what they sent before.
//!
//! A file below `tests/vectors/digests` has a number for each of the first seeds of a story, made
//! from the bytes that each peer was sent. Whoever only moves code or makes it faster leaves them
//! as they are. A commit that changes them says why. `RINGWAY_BLESS=1 cargo test --test NAME
//! digests` writes them anew; with `-- --nocapture` they are printed.

use std::fmt::Write;
use std::path::Path;

/// Seeds that have a number.
const SEEDS: u64 = 100;

/// Fails if a seed of the story sends something else than its file says.
pub fn check(story: &str, digest: impl Fn(u64) -> u64) {
    let file = format!("tests/vectors/digests/{story}.txt");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
    let mut now = String::new();
    for seed in 0..SEEDS {
        writeln!(now, "{seed} {:016x}", digest(seed)).expect("a string grows");
    }
    print!("{story}\n{now}");
    if std::env::var_os("RINGWAY_BLESS").is_some() {
        std::fs::write(&path, now).expect("the file of the digests is written");
        return;
    }
    let before = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(before.lines().count() as u64, SEEDS, "{file}: lines, one for each seed");
    let lines = now.lines().zip(before.lines()).zip(0..SEEDS);
    let seeds: Vec<String> = lines
        .filter(|((now, before), _)| now != before)
        .map(|(_, seed)| seed.to_string())
        .collect();
    assert!(
        seeds.is_empty(),
        "{file}: seeds {} send something else than before. If that is meant, RINGWAY_BLESS=1 \
         writes the file anew, and the commit says why",
        seeds.join(", ")
    );
}
