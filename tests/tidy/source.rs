//! Source files as the style test sees them: the lines, and the same lines without comments and
//! literals, so that what is looked for in code is not found in prose.

use std::path::{Path, PathBuf};

/// A Rust file.
pub struct Source {
    /// Relative to the repository, with `/`.
    pub path: String,
    pub lines: Vec<String>,
    /// The lines with comments, strings and characters blanked; as many, and as long.
    pub code: Vec<String>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let split = |text: &str| text.lines().map(str::to_owned).collect();
        Source { path: path.to_owned(), lines: split(text), code: split(&blank(text)) }
    }

    /// Whether the file is this one, or lies in this folder.
    pub fn is_in(&self, place: &str) -> bool {
        self.path == place || self.path.strip_prefix(place).is_some_and(|p| p.starts_with('/'))
    }

    /// A message about a line, counted from 0.
    pub fn at(&self, index: usize, message: &str) -> String {
        format!("{}:{}: {message}", self.path, index + 1)
    }

    /// The name of the module in whose braces a line stands, as rustfmt lays it out.
    pub fn module_around(&self, index: usize) -> Option<&str> {
        let mut before = self.code[..=index].iter().rev();
        let item = before.find(|line| line.starts_with(|c: char| !c.is_whitespace()))?;
        let (_, name) = item.trim_end().strip_suffix(" {")?.split_once("mod ")?;
        Some(name)
    }

    /// Where the word stands in the code: index of the line, and what follows the word there.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        self.code.iter().enumerate().flat_map(move |(index, line)| {
            let found = line.match_indices(word).filter(move |(at, _)| {
                let before = line[..*at].chars().next_back();
                let after = line[at + word.len()..].chars().next();
                let joins = |c: Option<char>| c.is_some_and(is_word);
                let starts = word.starts_with(is_word);
                let ends = word.ends_with(is_word);
                !(starts && joins(before) || ends && joins(after))
            });
            found.map(move |(at, _)| (index, &line[at + word.len()..]))
        })
    }
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// All files below a folder that may exist, in order; build results and dependencies left out.
pub fn files(root: &Path, folder: &str) -> Vec<(String, PathBuf)> {
    const SKIPPED: [&str; 9] = [
        "target",
        ".git",
        ".cache",
        "node_modules",
        "venv",
        ".venv",
        "__pycache__",
        "corpus",
        "artifacts",
    ];
    let mut found = Vec::new();
    let mut open = vec![root.join(folder)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.expect("the folder can be read").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            if SKIPPED.iter().any(|skipped| name.as_deref() == Some(*skipped)) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                let relative = path.strip_prefix(root).expect("it was found below the root");
                found.push((relative.to_string_lossy().into_owned(), path));
            }
        }
    }
    found.sort();
    found
}

/// All Rust files below some folders.
pub fn sources(root: &Path, folders: &[&str]) -> Vec<Source> {
    let all = folders.iter().flat_map(|folder| files(root, folder));
    all.filter(|(name, _)| name.ends_with(".rs"))
        .map(|(name, path)| {
            let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"));
            Source::new(&name, &text)
        })
        .collect()
}

/// Replaces comments, strings and characters by spaces.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at).unwrap_or(at).min(chars.len());
        for c in &chars[at..end] {
            out.push(if *c == '\n' { '\n' } else { ' ' });
        }
        if end == at {
            out.push(chars[at]);
        }
        at = end.max(at + 1);
    }
    out
}

/// The end of the comment or literal that begins here.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let is = |offset: usize, c: char| chars.get(at + offset) == Some(&c);
    let in_word = at > 0 && is_word(chars[at - 1]);
    match chars[at] {
        '/' if is(1, '/') => Some(find(chars, at, |rest| rest[0] == '\n')),
        '/' if is(1, '*') => Some(comment_end(chars, at)),
        '"' => Some(string_end(chars, at + 1)),
        '\'' if is(1, '\\') => Some(find(chars, at + 3, |rest| rest[0] == '\'') + 1),
        '\'' if is(2, '\'') => Some(at + 3),
        'b' | 'c' if !in_word && is(1, '"') => Some(string_end(chars, at + 2)),
        'b' | 'c' if !in_word && is(1, 'r') => raw_end(chars, at + 2),
        'r' if !in_word => raw_end(chars, at + 1),
        _ => None,
    }
}

fn find(chars: &[char], from: usize, is_end: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|at| is_end(&chars[*at..])).unwrap_or(chars.len())
}

fn comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => depth += 1,
            ['*', '/', ..] => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// The end of a raw string whose `#` or `"` is expected at `at`.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars.get(at..)?.iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let ends = |rest: &[char]| {
        rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes
    };
    Some(find(chars, at + hashes + 1, ends) + 1 + hashes)
}

#[test]
fn comments_and_literals_are_blanked_and_code_is_not() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"a "b \" c" d"#, "a          d"),
        ("a r#\"b \" c\"# d", "a            d"),
        ("a br\"b\\\" d", "a        d"),
        ("r#type 'a' b'\\'' '\\u{2014}' &'a str", "r#type     b                &'a str"),
        ("var\"x\" crater", "var    crater"),
    ] {
        assert_eq!(blank(text), expected, "{text}");
    }
}
