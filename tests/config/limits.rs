//! The table of limits: every constant has a row, and is what the code uses.

use std::collections::BTreeSet;

use ringway::hub::ConnId;
use ringway::wire::http;
use ringway::{config, limits};

use super::root;

#[test]
fn the_table_of_limits_agrees_with_the_code() {
    assert_eq!(limits::SHARDS_MAX, ConnId::SHARDS_MAX);
    assert_eq!(limits::SLOTS_MAX, ConnId::SLOTS_MAX);
    assert_eq!(limits::HTTP_HEAD_BYTES_MAX, http::HEAD_BYTES_MAX);
    assert_eq!(limits::HTTP_HEADERS_MAX, http::HEADERS_MAX);
    let entries = |folder: &str| std::fs::read_dir(root(folder)).expect("it is there");
    let path = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("it can be read").path();
    let of_protocols = entries("src/protocols").map(path).map(|folder| folder.join("limits.rs"));
    let files = entries("src/limits").map(path).chain(of_protocols.filter(|path| path.exists()));
    let sources = files.map(|path| std::fs::read_to_string(path).expect("it is a text"));
    let sources: Vec<String> = sources.collect();
    let tables = sources.iter().filter_map(|source| source.split_once(": &[Limit] ="));
    let (constants, rows): (Vec<&str>, Vec<&str>) = tables.unzip();
    let constants = constants.iter().flat_map(|constants| constants.lines());
    let constants: Vec<&str> =
        constants.filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()).collect();
    for name in &constants {
        let row = format!("{name} as i64");
        let time = format!("{name}.as_millis() as i64");
        let has = |line: &str| [&row, &time].iter().any(|row| line.trim().starts_with(&***row));
        assert!(rows.iter().any(|rows| rows.lines().any(has)), "{name} has no row");
    }
    assert!(constants.contains(&"SHARDS_MAX") && constants.contains(&"ANSWER_PIECE"));
    let keys: BTreeSet<_> = config::all::keys().collect();
    assert_eq!(keys.len(), config::all::keys().count());
}
