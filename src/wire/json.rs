//! JSON (RFC 8259): the one reader and the one writer of everything that peers say and hear.
//!
//! A text is checked completely and indexed once; values are looked at where they lie.
//!
//! Invariants: [`Index::read`] accepts exactly the grammar of RFC 8259 in UTF-8, with at most
//! [`JSON_DEPTH_MAX`] levels, so recursion is bounded; every position in the index is within its
//! text. An escape that is half of a surrogate pair is U+FFFD, also in the text that a value shows
//! of itself: what is copied from here can be read by everybody. Of two members with one name the
//! last one counts. Numbers are never converted to floats.
//! Costs: time grows with the length of the text; 12 bytes of index per value, in a vector that is
//! used again; no allocation per text once it has grown. Looking up a member compares names one by
//! one. Only strings with escapes are copied, and texts with half a pair.

use std::borrow::Cow;

use crate::limits::JSON_DEPTH_MAX;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// One value or member name: where it stands, and where the next one is that is not inside of it.
#[derive(Clone, Copy, Debug)]
struct Node {
    start: u32,
    end: u32,
    /// Index of the node after this one and everything in it.
    next: u32,
}

/// Nodes and bytes beyond which memory is given back before the next text.
const NODES_KEPT: usize = 64 * 1024;
/// Texts that an index can hold.
const TEXT_BYTES_MAX: usize = 1 << 28;
/// What stands for half of a pair; as long as its escape.
const REPLACEMENT: &str = "\\ufffd";

/// Where the values of a text are.
#[derive(Debug, Default)]
pub struct Index {
    nodes: Vec<Node>,
    /// Where half a pair is written.
    halves: Vec<u32>,
    /// The text with U+FFFD in these places; empty if there are none.
    mended: String,
}

impl Index {
    /// Reads a text. `None`: it is not UTF-8, not JSON, or nested too deeply.
    pub fn read<'a>(&'a mut self, text: &'a [u8]) -> Option<Value<'a>> {
        let text = simdutf8::basic::from_utf8(text).ok()?;
        self.fill(text).then_some(())?;
        self.value(text)
    }

    /// Reads a text; says whether it is JSON.
    pub fn fill(&mut self, text: &str) -> bool {
        self.nodes.clear();
        self.nodes.shrink_to(NODES_KEPT);
        self.halves.clear();
        self.halves.shrink_to(NODES_KEPT);
        self.mended.clear();
        self.mended.shrink_to(NODES_KEPT);
        let Index { nodes, halves, .. } = self;
        let mut reader = Reader { bytes: text.as_bytes(), at: 0, nodes, halves };
        let read = text.len() <= TEXT_BYTES_MAX && reader.document().is_some();
        if read {
            self.mend(text);
        } else {
            self.nodes.clear();
        }
        read
    }

    fn mend(&mut self, text: &str) {
        let mut from = 0;
        for half in &self.halves {
            let half = *half as usize;
            self.mended.extend([&text[from..half], REPLACEMENT]);
            from = half + REPLACEMENT.len();
        }
        if from > 0 {
            self.mended.push_str(&text[from..]);
        }
    }

    /// The text that was read last; it must be the same.
    pub fn value<'a>(&'a self, text: &'a str) -> Option<Value<'a>> {
        let root = self.nodes.first()?;
        let text = if self.mended.is_empty() { text } else { &self.mended };
        (root.end as usize <= text.len()).then_some(Value { text, index: self, at: 0 })
    }
}

/// A value in its text.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    text: &'a str,
    index: &'a Index,
    at: usize,
}

impl<'a> Value<'a> {
    fn node(self) -> Option<Node> {
        self.index.nodes.get(self.at).copied()
    }

    /// What it is.
    pub fn kind(self) -> ValueKind {
        match self.text().as_bytes().first() {
            Some(b'{') => ValueKind::Object,
            Some(b'[') => ValueKind::Array,
            Some(b'"') => ValueKind::String,
            Some(b'n') => ValueKind::Null,
            Some(b't' | b'f') => ValueKind::Bool,
            _ => ValueKind::Number,
        }
    }

    /// The value as it was written, but for halves of surrogate pairs; without white space around
    /// it.
    pub fn text(self) -> &'a str {
        self.text.get(self.range()).unwrap_or("null")
    }

    /// Where it stands in its text.
    pub fn range(self) -> std::ops::Range<usize> {
        self.node().map_or(0..0, |node| node.start as usize..node.end as usize)
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.kind() == ValueKind::Null
    }

    /// The integer that it is; `None` for another kind, a fraction, an exponent, or too many digits
    /// for 64 bits.
    pub fn integer(self) -> Option<i64> {
        // A fraction or an exponent is no digit. `-0` is 0.
        self.text().parse().ok()
    }

    /// The characters of a string. `None` of anything else.
    pub fn string(self) -> Option<Cow<'a, str>> {
        let text = self.text();
        if text.starts_with('"') { characters(text) } else { None }
    }

    /// The value that an object has for a name.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        self.members().filter(|(key, _)| key == name).map(|(_, value)| value).last()
    }

    /// The element of an array.
    pub fn element(self, index: u32) -> Option<Value<'a>> {
        self.elements().nth(index as usize)
    }

    /// The elements of an array; none of anything else.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        self.children(ValueKind::Array)
    }

    /// Names and values of an object, as often as they are written; none of anything else.
    pub fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> {
        let mut children = self.children(ValueKind::Object);
        std::iter::from_fn(move || Some((children.next()?.string()?, children.next()?)))
    }

    fn children(self, of: ValueKind) -> impl Iterator<Item = Value<'a>> {
        let node = self.node().filter(|_| self.kind() == of);
        let end = node.map_or(self.at, |node| node.next as usize);
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let child = Value { at, ..self };
            at = child.node()?.next as usize;
            Some(child)
        })
    }

    /// The same as a tree, for what is not the data path. A number that no float holds is null.
    pub fn tree(self) -> serde_json::Value {
        match self.kind() {
            ValueKind::String => self.string().unwrap_or_default().into(),
            ValueKind::Array => self.elements().map(Value::tree).collect(),
            ValueKind::Object => {
                self.members().map(|(name, value)| (name.into_owned(), value.tree())).collect()
            }
            ValueKind::Null | ValueKind::Bool | ValueKind::Number => {
                serde_json::from_str(self.text()).unwrap_or_default()
            }
        }
    }
}

/// Reads a text as a tree, for what is not the data path; see [`Index::read`].
pub fn tree(text: &[u8]) -> Option<serde_json::Value> {
    Some(Index::default().read(text)?.tree())
}

/// A value, given as the text of one that was read, as it stands in another text: the characters of
/// a string, anything else as it was written. `None` of null.
pub fn shown(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first() {
        Some(b'"') => characters(value),
        Some(b'n') => None,
        _ => Some(Cow::Borrowed(value)),
    }
}

/// The characters of a string that was read before.
fn characters(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.get(1..text.len().checked_sub(1)?)?;
    Some(match memchr::memchr(b'\\', inner.as_bytes()) {
        None => Cow::Borrowed(inner),
        Some(_) => Cow::Owned(unescaped(inner)),
    })
}

/// Resolves the escapes of the inside of a string that was read before.
fn unescaped(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = escape.chars();
        let next = chars.next().unwrap_or('\\');
        rest = chars.as_str();
        match next {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'u' => {
                let (character, used) = unicode(rest.as_bytes()).unwrap_or((None, 0));
                out.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
                rest = rest.get(used..).unwrap_or_default();
            }
            other => out.push(other),
        }
    }
    out.push_str(rest);
    out
}

/// The character after `\u` and how many bytes it takes; no character: half of a pair. `None`:
/// there are no four digits.
fn unicode(bytes: &[u8]) -> Option<(Option<char>, usize)> {
    let high = hex(bytes.get(..4)?)?;
    if let 0xd800..0xdc00 = high
        && let Some(low) = bytes.get(4..10).and_then(|next| hex(next.strip_prefix(b"\\u")?))
        && let 0xdc00..0xe000 = low
    {
        return Some((char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)), 10));
    }
    Some((char::from_u32(high), 4))
}

fn hex(digits: &[u8]) -> Option<u32> {
    let digit = |sum: u32, byte: &u8| Some(sum << 4 | char::from(*byte).to_digit(16)?);
    digits.iter().try_fold(0, digit)
}

/// A place in a text. The methods give `None` where the text is not JSON.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: &'a mut Vec<Node>,
    halves: &'a mut Vec<u32>,
}

impl Reader<'_> {
    fn document(&mut self) -> Option<()> {
        self.space();
        self.value(0)?;
        self.space();
        (self.at == self.bytes.len()).then_some(())
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// One value that stands inside of `depth` others.
    fn value(&mut self, depth: usize) -> Option<()> {
        let node = self.nodes.len();
        self.nodes.push(Node { start: self.at as u32, end: 0, next: 0 });
        match *self.bytes.get(self.at)? {
            b'"' => self.string()?,
            b'[' if depth < JSON_DEPTH_MAX => self.array(depth)?,
            b'{' if depth < JSON_DEPTH_MAX => self.object(depth)?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        }
        let next = self.nodes.len() as u32;
        let entry = self.nodes.get_mut(node)?;
        entry.end = self.at as u32;
        entry.next = next;
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let found = self.bytes.get(self.at..)?.starts_with(word);
        self.at += word.len();
        found.then_some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        self.space();
        if self.eat(b']') {
            return Some(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            if self.eat(b']') {
                return Some(());
            }
            self.expect(b',')?;
            self.space();
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        self.space();
        if self.eat(b'}') {
            return Some(());
        }
        loop {
            if self.bytes.get(self.at) != Some(&b'"') {
                return None;
            }
            self.value(depth + 1)?;
            self.space();
            self.expect(b':')?;
            self.space();
            self.value(depth + 1)?;
            self.space();
            if self.eat(b'}') {
                return Some(());
            }
            self.expect(b',')?;
            self.space();
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
            self.at += self.bytes.get(self.at..)?.iter().position(special)?;
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match *self.bytes.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'u' => {
                let (character, used) = unicode(self.bytes.get(self.at + 2..)?)?;
                if character.is_none() {
                    self.halves.push(self.at as u32);
                }
                self.at += 2 + used;
            }
            _ => return None,
        }
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _signed = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// Appends a text as a JSON string. Only what must be escaped is.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "\\u00",
            _ => continue,
        };
        out.push_str(&text[from..at]);
        out.push_str(escape);
        if escape.len() > 2 {
            let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
            out.extend([digit(byte >> 4), digit(byte & 15)]);
        }
        from = at + 1;
    }
    out.push_str(&text[from..]);
    out.push('"');
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_string(&mut out, text);
    out
}

/// Appends an object whose values are texts.
pub fn push_texts<'a>(out: &mut String, members: impl IntoIterator<Item = (&'a str, &'a str)>) {
    out.push('{');
    for (at, (name, value)) in members.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_string(out, name);
        out.push(':');
        push_string(out, value);
    }
    out.push('}');
}
