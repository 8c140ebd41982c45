//! The rules of the style test. Each takes a file and returns what is wrong with it, with the line
//! and what to do.

use crate::house;
use crate::source::{Source, is_word};

pub const FILE_LINES_MAX: usize = 600;
pub const FUNCTION_LINES_MAX: usize = 60;
pub const LINE_COLUMNS_MAX: usize = 100;

/// Who may import what of the crate: folder or file below `src/` (`*` is any one), and the paths
/// below `crate::`. The first row that fits counts. What has no row here may import everything
/// (`lib.rs`, `main.rs`, `gateway` tie it together).
pub const IMPORTS: &[(&str, &[&str])] = &[
    ("spare.rs", &[]),
    ("allocator.rs", &[]),
    ("hub", &["hub", "limits", "spare", "wire::json"]),
    ("wire/worker", &["wire", "limits", "hub::ConnId", "hub::Rotation"]),
    ("wire", &["wire", "limits"]),
    (
        "limits/all.rs",
        &[
            "limits",
            "protocols::connmix::limits",
            "protocols::im::limits",
            "protocols::netsvr::limits",
            "protocols::xxim::limits",
        ],
    ),
    ("limits", &["limits"]),
    ("log.rs", &[]),
    ("mail", &["mail", "life::Gone"]),
    ("life", &["life", "metrics", "limits", "log", "hub::ConnId"]),
    (
        "config/all.rs",
        &[
            "config",
            "limits",
            "protocols::connmix::config",
            "protocols::im::config",
            "protocols::netsvr::config",
            "protocols::xxim::config",
            "wire::forwarded",
        ],
    ),
    (
        "config",
        &[
            "config",
            "limits",
            "log::target",
            "pem",
            "wire::forwarded",
            "wire::network",
            "wire::origin",
        ],
    ),
    ("metrics", &["metrics", "limits"]),
    ("patience.rs", &[]),
    (
        "machine",
        &["machine", "engine::ring", "engine::driver", "config", "limits", "log", "patience"],
    ),
    ("pem.rs", &[]),
    ("ctl", &["ctl"]),
    ("import", &["import", "config", "limits", "pem"]),
    ("tls_files.rs", &["config", "limits", "pem"]),
    ("rsa_keys.rs", &["pem"]),
    (
        "engine",
        &[
            "engine",
            "lists",
            "wire",
            "hub",
            "config",
            "metrics",
            "limits",
            "life",
            "log",
            "spare",
            "allocator",
            "mail",
            "patience",
        ],
    ),
    (
        "lists/numbers.rs",
        &["engine::conns::Kind", "engine::conns::KINDS_MAX", "engine::forms", "hub::push::Format"],
    ),
    (
        "lists",
        &[
            "lists",
            "protocols::connmix::letters",
            "protocols::im::letters",
            "protocols::netsvr::letters",
            "protocols::xxim::letters",
            "engine",
            "wire",
            "hub",
            "config",
            "metrics",
        ],
    ),
    (
        "outside",
        &[
            "outside",
            "lists",
            "wire",
            "hub::ConnId",
            "config",
            "metrics",
            "limits",
            "life",
            "log",
            "mail",
        ],
    ),
    (
        "protocols/*/service",
        &[
            "protocols",
            "outside",
            "lists",
            "hub",
            "config",
            "metrics",
            "limits",
            "life",
            "log",
            "mail",
            "rsa_keys",
            "spare",
        ],
    ),
    ("protocols/*/limits", &["limits"]),
    ("protocols/*/config", &["protocols", "wire", "config", "limits", "pem"]),
    (
        "protocols",
        &[
            "protocols",
            "engine",
            "lists",
            "wire",
            "hub",
            "config",
            "metrics",
            "limits",
            "log",
            "spare",
        ],
    ),
    (
        "shard",
        &[
            "shard",
            "protocols",
            "engine",
            "lists",
            "wire",
            "hub",
            "config",
            "metrics",
            "limits",
            "life",
            "log",
            "mail",
            "patience",
            "spare",
            "allocator",
        ],
    ),
    ("sim", &["sim", "shard", "protocols", "engine", "lists", "wire", "hub", "config", "limits"]),
    (
        "sidecar",
        &[
            "sidecar",
            "protocols",
            "outside",
            "engine::look",
            "lists",
            "wire",
            "hub",
            "config",
            "metrics",
            "limits",
            "life",
            "log",
            "mail",
            "pem",
            "rsa_keys",
            "spare",
            "allocator",
        ],
    ),
    ("demo", &["demo", "protocols", "wire", "config", "limits", "log"]),
];

/// Folders that are pure: bytes and events in, bytes and commands out.
const PURE: [&str; 3] = ["src/wire", "src/hub", "src/spare.rs"];
/// What pure code does without, and what it has instead.
const IMPURE: &[(&str, &str)] = &[
    ("TcpStream", "bytes are arguments"),
    ("TcpListener", "bytes are arguments"),
    ("UdpSocket", "bytes are arguments"),
    ("UnixStream", "bytes are arguments"),
    ("socket2", "bytes are arguments"),
    ("io_uring", "bytes are arguments"),
    ("glommio", "the shard calls it"),
    ("tokio", "the shard calls it"),
    ("rustix", "the shard calls the system"),
    ("libc", "the shard calls the system"),
    ("std::fs", "contents are arguments"),
    ("std::env", "settings are arguments"),
    ("std::thread", "the shard has the thread"),
    ("std::process", "return an error"),
    ("Instant", "`now` is an argument"),
    ("SystemTime", "`now` is an argument"),
    ("tracing", "return what happened; the shard logs it"),
    ("println!", "return what happened; the shard logs it"),
    ("eprintln!", "return what happened; the shard logs it"),
    ("thread_local!", "give the state to its owner"),
    ("static mut", "give the state to its owner"),
    ("LazyLock", "give the state to its owner"),
];

/// Where threads may be started that nobody watches: by what watches the others, before there is
/// a gateway, to try whether there can be threads, and beside it.
const UNWATCHED: [&str; 4] = ["src/life", "src/main.rs", "src/machine", "src/demo"];

/// Where `unsafe` may stand in the gateway.
const UNSAFE: [&str; 4] =
    ["src/engine/ring.rs", "src/engine/ring", "src/engine/buffers.rs", "src/allocator.rs"];

/// Marks of unfinished work; in two parts, or this file would have them.
const UNFINISHED: [&str; 3] = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];

pub fn size(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if source.lines.len() > FILE_LINES_MAX {
        let message = format!("more than {FILE_LINES_MAX} lines in the file; split it");
        found.push(source.at(FILE_LINES_MAX, &message));
    }
    for (index, line) in source.lines.iter().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_COLUMNS_MAX {
            let message = format!("{columns} columns; wrap the line at {LINE_COLUMNS_MAX}");
            found.push(source.at(index, &message));
        }
    }
    for (index, lines) in functions(source) {
        if lines > FUNCTION_LINES_MAX {
            let message = format!(
                "the function has {lines} lines, {FUNCTION_LINES_MAX} are allowed; take parts out"
            );
            found.push(source.at(index, &message));
        }
    }
    found
}

/// First line and number of lines of every function with a body, as rustfmt lays it out.
fn functions(source: &Source) -> impl Iterator<Item = (usize, usize)> {
    let code = &source.code;
    let starts = (0..code.len()).filter(|index| is_function(&code[*index]));
    starts.filter_map(|start| {
        let header =
            (start..code.len()).find(|i| code[*i].trim_end().ends_with(['{', ';', '}']))?;
        let line = &code[start];
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let body = code[header].trim_end().ends_with('{').then_some(header + 1)?;
        let end = (body..code.len()).find(|index| code[*index].trim_end() == closing)?;
        Some((start, end - start + 1))
    })
}

fn is_function(line: &str) -> bool {
    const BEFORE: [&str; 6] = ["pub", "const", "async", "unsafe", "extern", "default"];
    let mut words = line.split_whitespace();
    let word = words.find(|word| !BEFORE.contains(word) && !word.starts_with("pub("));
    word == Some("fn")
}

pub fn first_line(source: &Source) -> Vec<String> {
    let begins = source.lines.first().is_some_and(|line| line.starts_with("//! "));
    let message =
        "the file does not begin with `//!`; say what it is for, its invariants, its costs";
    if begins { Vec::new() } else { vec![source.at(0, message)] }
}

pub fn unfinished(source: &Source) -> Vec<String> {
    let macros = ["todo!", "unimplemented!", "dbg!"];
    let in_code = macros.iter().flat_map(|name| source.words(name).map(move |(i, _)| (i, *name)));
    let mut found: Vec<String> = in_code
        .map(|(index, name)| source.at(index, &format!("{name}(..) is unfinished work; do it")))
        .collect();
    for (index, line) in source.lines.iter().enumerate() {
        let words = line.split(|c: char| !is_word(c));
        for mark in words.filter(|word| UNFINISHED.contains(word)) {
            found.push(source.at(index, &format!("{mark} is unfinished work; do it or drop it")));
        }
    }
    found
}

pub fn imports(source: &Source) -> Vec<String> {
    let Some(path) = source.path.strip_prefix("src/") else {
        return Vec::new();
    };
    let Some((place, allowed)) = IMPORTS.iter().find(|(place, _)| is_at(path, place)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (index, import) in crate_paths(source) {
        if !allowed.iter().any(|allowed| is_below(&import, allowed, "::")) {
            let message = format!(
                "src/{place} may not use crate::{import}; it may use {}",
                if allowed.is_empty() { "nothing of the crate".into() } else { allowed.join(", ") }
            );
            found.push(source.at(index, &message));
        }
    }
    let depth = path.split('/').filter(|part| *part != "mod.rs").count();
    for (index, rest) in source.words("super::") {
        let inline = usize::from(source.module_around(index).is_some());
        let supers = 1 + rest.split("super::").take_while(|between| between.is_empty()).count();
        if supers >= depth + inline {
            found.push(
                source.at(index, "this leads out of the folder; write the path with crate::"),
            );
        }
    }
    found
}

/// Whether a file stands at a place or below it; a folder may be one file.
pub fn is_at(path: &str, place: &str) -> bool {
    let mut parts = path.split('/');
    place.split('/').all(|wanted| {
        let part = parts.next().unwrap_or_default();
        part == wanted || part.strip_suffix(".rs") == Some(wanted) || wanted == "*"
    })
}

fn is_below(path: &str, place: &str, separator: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

/// Every path that begins with `crate::`, groups spelled out, without the `crate::`.
pub fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, rest) in source.words("crate::") {
        let following = source.code[index + 1..].iter().take(200);
        let text: String = std::iter::once(rest)
            .chain(following.map(String::as_str))
            .flat_map(|line| [line, " "])
            .collect();
        let mut paths = Vec::new();
        use_tree(&mut text.as_str(), "", &mut paths);
        found.extend(paths.into_iter().map(|path| (index, path)));
    }
    found
}

/// Reads a path or a group in braces; what stands before it is `prefix`.
fn use_tree(text: &mut &str, prefix: &str, out: &mut Vec<String>) {
    *text = text.trim_start();
    if let Some(rest) = text.strip_prefix('{') {
        *text = rest;
        loop {
            *text = text.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if let Some(rest) = text.strip_prefix('}') {
                *text = rest;
                return;
            }
            if text.is_empty() {
                return;
            }
            use_tree(text, prefix, out);
            // What a path is renamed to does not matter.
            *text = text.trim_start_matches(|c| c != ',' && c != '}');
        }
    }
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = match (prefix, name) {
        (_, "" | "self") => prefix.to_owned(),
        ("", _) => name.to_owned(),
        _ => format!("{prefix}::{name}"),
    };
    *text = rest;
    match rest.strip_prefix("::") {
        Some(rest) => {
            *text = rest;
            use_tree(text, &path, out);
        }
        None => out.push(path),
    }
}

pub fn purity(source: &Source) -> Vec<String> {
    if !PURE.iter().any(|place| source.is_in(place)) && !house::is_codec(source) {
        return Vec::new();
    }
    let found = IMPURE.iter().flat_map(|(word, instead)| {
        let message = format!("`{word}` does not belong into pure code; {instead}");
        let words = source.words(word);
        let outside = words.filter(|(index, _)| source.module_around(*index) != Some("tests"));
        outside.map(move |(index, _)| source.at(index, &message))
    });
    found.collect()
}

pub fn threads(source: &Source) -> Vec<String> {
    if !source.is_in("src") || UNWATCHED.iter().any(|place| source.is_in(place)) {
        return Vec::new();
    }
    let ways = ["thread::Builder", "thread::spawn", "thread::scope"];
    let started = ways.iter().flat_map(|way| source.words(way));
    let is_test = |index: usize| {
        source.path.ends_with("tests.rs") || source.module_around(index) == Some("tests")
    };
    let message = "nobody watches this thread; start it with `Life::spawn`";
    let found = started.filter(|(index, _)| !is_test(*index));
    found.map(|(index, _)| source.at(index, message)).collect()
}

/// Events of which nobody can tell under which target a filter finds them when the code moves.
pub fn targets(source: &Source) -> Vec<String> {
    const LEVELS: [&str; 6] = ["error!(", "warn!(", "info!(", "debug!(", "trace!(", "event!("];
    if !source.is_in("src") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, _) in source.words("use tracing").filter(|(_, rest)| rest.starts_with("::")) {
        found.push(source.at(index, "write the macro with `tracing::`, so that it is found"));
    }
    for (index, rest) in source.words("tracing::") {
        let Some(arguments) = LEVELS.iter().find_map(|level| rest.strip_prefix(level)) else {
            continue;
        };
        let following = source.code.get(index + 1).map_or("", |line| line.trim());
        let first = if arguments.is_empty() { following } else { arguments };
        if !first.starts_with("target: target::") {
            let message = "the event has no target; begin with `target: target::...` of src/log.rs";
            found.push(source.at(index, message));
        }
    }
    found
}

pub fn unsafety(source: &Source) -> Vec<String> {
    let allowed = !source.is_in("src") || UNSAFE.iter().any(|place| source.is_in(place));
    let mut found = Vec::new();
    for (index, rest) in source.words("unsafe") {
        if !allowed {
            let message = format!("unsafe may only stand in {}; move it there", UNSAFE.join(", "));
            found.push(source.at(index, &message));
        } else if rest.trim_start().starts_with("fn") {
            if !above(source, index, "# Safety") {
                let message = "unsafe function without `# Safety`; say what its caller must keep";
                found.push(source.at(index, message));
            }
        } else if !above(source, index, "SAFETY:") {
            let message = "unsafe without `// SAFETY:` right before it; say why it is sound";
            found.push(source.at(index, message));
        }
    }
    found
}

/// Whether the text stands in the comment above a statement, of which this may be a later line.
fn above(source: &Source, index: usize, text: &str) -> bool {
    let mut lines = source.lines[..index].iter().rev().map(|line| line.trim());
    lines
        .by_ref()
        .skip_while(|line| !line.starts_with("//") && !line.ends_with([';', '{', '}', ',']))
        .take_while(|line| line.starts_with("//") || line.starts_with("#["))
        .any(|line| line.contains(text))
}

/// Files that no `mod` of another file names. Files of `tests/` may be named by any other of them,
/// as there they are found by `#[path]`.
pub fn dead(sources: &[Source]) -> Vec<String> {
    let is_root = |path: &str| {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        matches!(name, "lib.rs" | "main.rs" | "build.rs") && !folder.contains("tests/")
            || folder.ends_with("/bin")
            || ["tests", "perf/tests", "perf/benches", "benches"].contains(&folder)
            || folder.starts_with("fuzz")
    };
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !is_root(&source.path)) {
        let whole = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let (folder, name) = whole.rsplit_once('/').unwrap_or(("", whole));
        let declaration = format!("mod {name};");
        let by_path = format!("{}\"]", source.path.rsplit('/').next().unwrap_or_default());
        let names_it = |other: &&Source| {
            let near = [format!("{folder}.rs"), format!("{folder}/mod.rs")].contains(&other.path)
                || [format!("{folder}/lib.rs"), format!("{folder}/main.rs")].contains(&other.path)
                || (source.is_in("tests") && other.is_in("tests"));
            let by_path = |line: &String| line.contains("#[path = \"") && line.ends_with(&by_path);
            near && other.words(&declaration).next().is_some()
                || other.path.starts_with(folder) && other.lines.iter().any(by_path)
        };
        if sources.iter().find(names_it).is_none() {
            let message = format!("no file says `{declaration}`; name it or delete the file");
            found.push(source.at(0, &message));
        }
    }
    found
}

/// Words that do not belong into any text of the repository; in two parts, or this file had them.
const PRIVATE: [(&str, &str); 6] = [
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/fa", "rm/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("../sha", "red"), "a path outside of the repository"),
    (concat!("design", ".md"), "a document that is not here"),
    (concat!("design ", "section"), "a section of a document that is not here"),
];

pub fn prose(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = PRIVATE.iter().filter(|(word, _)| line.contains(word));
        for (word, what) in words {
            found.push(format!("{path}:{}: {word} is {what}; say it without", index + 1));
        }
        if line.contains('\u{2014}') {
            found.push(format!("{path}:{}: em dash; use a colon or a new sentence", index + 1));
        }
    }
    found
}
