//! JSON as it stands: a text is checked and indexed once, values are looked at where they lie.
//!
//! Invariants: [`Index::read`] accepts exactly RFC 8259, with at most [`JSON_DEPTH_MAX`] levels;
//! every position in the index is within its text. Of two members with one name the last one
//! counts.
//! Costs: 12 bytes of index per value, in a vector that is used again; no allocation per message
//! once it has grown. Looking up a member compares names one by one. Only strings with escapes are
//! copied.

use std::borrow::Cow;

use crate::limits::JSON_DEPTH_MAX;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    True,
    False,
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
    /// Index of the node after this one and everything in it, and the kind in the low bits.
    next_and_kind: u32,
}

const KIND_BITS: u32 = 3;

impl Node {
    fn next(self) -> usize {
        (self.next_and_kind >> KIND_BITS) as usize
    }

    fn kind(self) -> Kind {
        match self.next_and_kind & ((1 << KIND_BITS) - 1) {
            0 => Kind::Null,
            1 => Kind::True,
            2 => Kind::False,
            3 => Kind::Number,
            4 => Kind::String,
            5 => Kind::Array,
            _ => Kind::Object,
        }
    }
}

/// Nodes beyond which the vector is given back after use: 64 Ki of 12 bytes.
const NODES_KEPT: usize = 64 * 1024;
/// Texts that an index can hold: the number of a node has 29 bits.
const TEXT_BYTES_MAX: usize = 1 << 28;

/// Where the values of a text are.
#[derive(Debug, Default)]
pub struct Index {
    nodes: Vec<Node>,
}

impl Index {
    /// Reads a text. `None`: it is not JSON, or nested too deeply.
    pub fn read<'a>(&'a mut self, text: &'a str) -> Option<Value<'a>> {
        self.fill(text).then_some(Value { text, index: self, at: 0 })
    }

    /// The text that was read last; it must be the same.
    pub fn value<'a>(&'a self, text: &'a str) -> Option<Value<'a>> {
        let root = self.nodes.first()?;
        (root.end as usize <= text.len()).then_some(Value { text, index: self, at: 0 })
    }

    /// Reads a text; says whether it is JSON.
    pub fn fill(&mut self, text: &str) -> bool {
        self.nodes.clear();
        self.nodes.shrink_to(NODES_KEPT);
        let mut reader = Reader { bytes: text.as_bytes(), at: 0, nodes: &mut self.nodes };
        let read = text.len() <= TEXT_BYTES_MAX && reader.document().is_some();
        if !read {
            self.nodes.clear();
        }
        read
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
    pub fn kind(self) -> Kind {
        self.node().map_or(Kind::Null, Node::kind)
    }

    /// The value as it was written.
    pub fn raw(self) -> &'a str {
        self.text.get(self.range()).unwrap_or("null")
    }

    /// Where it stands in its text.
    pub fn range(self) -> std::ops::Range<usize> {
        self.node().map_or(0..0, |node| node.start as usize..node.end as usize)
    }

    /// The member of an object.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        let mut found = None;
        for (key, value) in self.members() {
            if key.is(name) {
                found = Some(value);
            }
        }
        found
    }

    /// The element of an array.
    pub fn element(self, index: u32) -> Option<Value<'a>> {
        self.elements().nth(index as usize)
    }

    /// The elements of an array; none of anything else.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        self.children(Kind::Array)
    }

    /// Names and values of an object, as often as they are written; none of anything else.
    pub fn members(self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> {
        let mut children = self.children(Kind::Object);
        std::iter::from_fn(move || Some((children.next()?, children.next()?)))
    }

    fn children(self, of: Kind) -> impl Iterator<Item = Value<'a>> {
        let node = self.node().filter(|node| node.kind() == of);
        let end = node.map_or(self.at, Node::next);
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let child = Value { at, ..self };
            at = child.node()?.next();
            Some(child)
        })
    }

    /// The characters of a string. `None` of anything else.
    pub fn string(self) -> Option<Cow<'a, str>> {
        if self.kind() != Kind::String {
            return None;
        }
        characters(self.raw())
    }

    /// Whether this is a string with these characters.
    pub fn is(self, text: &str) -> bool {
        self.string().is_some_and(|string| string == text)
    }
}

/// A value, given as JSON text, as it stands in another text: the characters of a string, anything
/// else as it was written. `None` of null.
pub fn shown(raw: &str) -> Option<Cow<'_, str>> {
    match raw.as_bytes().first() {
        Some(b'"') => characters(raw),
        Some(b'n') => None,
        _ => Some(Cow::Borrowed(raw)),
    }
}

/// The characters of a string that was read before.
fn characters(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.get(1..raw.len().checked_sub(1)?)?;
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
                let (character, used) = unicode(rest.as_bytes()).unwrap_or(('\u{fffd}', 0));
                out.push(character);
                rest = rest.get(used..).unwrap_or_default();
            }
            other => out.push(other),
        }
    }
    out.push_str(rest);
    out
}

/// The character after `\u` and how many bytes it takes. `None`: half of a pair, or no digits.
fn unicode(bytes: &[u8]) -> Option<(char, usize)> {
    let high = hex(bytes.get(..4)?)?;
    if !(0xd800..0xdc00).contains(&high) {
        return Some((char::from_u32(high)?, 4));
    }
    let low = bytes.get(4..10).filter(|next| next.starts_with(b"\\u"))?;
    let low = hex(&low[2..])?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)?, 10))
}

fn hex(digits: &[u8]) -> Option<u32> {
    let digit = |sum: u32, byte: &u8| Some(sum << 4 | (*byte as char).to_digit(16)?);
    digits.iter().try_fold(0, digit)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: &'a mut Vec<Node>,
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

    fn value(&mut self, depth: usize) -> Option<()> {
        let start = self.at;
        let node = self.nodes.len();
        self.nodes.push(Node { start: start as u32, end: 0, next_and_kind: 0 });
        let kind = match *self.bytes.get(self.at)? {
            b'"' => {
                self.string()?;
                4
            }
            b'[' if depth < JSON_DEPTH_MAX => {
                self.array(depth)?;
                5
            }
            b'{' if depth < JSON_DEPTH_MAX => {
                self.object(depth)?;
                6
            }
            b't' => self.word(b"true", 1)?,
            b'f' => self.word(b"false", 2)?,
            b'n' => self.word(b"null", 0)?,
            _ => {
                self.number()?;
                3
            }
        };
        let next = self.nodes.len() as u32;
        let entry = self.nodes.get_mut(node)?;
        entry.end = self.at as u32;
        entry.next_and_kind = next << KIND_BITS | kind;
        Some(())
    }

    fn word(&mut self, word: &[u8], kind: u32) -> Option<u32> {
        let found = self.bytes.get(self.at..)?.starts_with(word);
        self.at += word.len();
        found.then_some(kind)
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
            match *self.bytes.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => match *self.bytes.get(self.at + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                    b'u' => {
                        let (_, used) = unicode(self.bytes.get(self.at + 2..)?)?;
                        self.at += 2 + used;
                    }
                    _ => return None,
                },
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_where_they_lie() {
        let text =
            r#" {"op":"a\u4f60\ud83d\ude00\/\n","n":-1.5e+3,"l":[1,[],{"x":null},true],"op2":{}} "#;
        let mut index = Index::default();
        let root = index.read(text).expect("this is JSON");
        assert_eq!(root.get("op").unwrap().string().unwrap(), "a\u{4f60}\u{1f600}/\n");
        assert_eq!(root.get("n").unwrap().raw(), "-1.5e+3");
        let list = root.get("l").unwrap();
        assert_eq!(list.elements().count(), 4);
        assert_eq!(list.element(2).unwrap().get("x").unwrap().kind(), Kind::Null);
        assert_eq!(shown(list.element(2).unwrap().get("x").unwrap().raw()), None);
        assert_eq!(list.element(3).unwrap().kind(), Kind::True);
        assert!(list.element(4).is_none() && list.get("x").is_none());
        assert_eq!(root.get("op2").unwrap().raw(), "{}");
        assert!(root.get("missing").is_none());
    }

    #[test]
    fn of_two_members_with_one_name_the_last_one_counts() {
        let mut index = Index::default();
        let root = index.read(r#"{"a":1,"a":2,"\u0061":3}"#).expect("this is JSON");
        assert_eq!(root.get("a").unwrap().raw(), "3");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let mut index = Index::default();
        for text in [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "tru",
            "nul",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "\"",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "1 2",
            "ping",
            "[1]]",
        ] {
            assert!(index.read(text).is_none(), "{text:?}");
            assert!(index.value(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let mut index = Index::default();
        assert!(index.read(&nested(JSON_DEPTH_MAX)).is_some());
        assert!(index.read(&nested(JSON_DEPTH_MAX + 1)).is_none());
        assert!(index.read(&"[".repeat(1 << 20)).is_none());
    }

    #[test]
    fn strings_are_written_as_json_reads_them() {
        let text: String = (0u8..128).map(char::from).chain("\u{4f60}\u{1f600}".chars()).collect();
        let mut out = String::new();
        push_string(&mut out, &text);
        assert_eq!(serde_json::from_str::<String>(&out).expect("a JSON string"), text);
    }
}
