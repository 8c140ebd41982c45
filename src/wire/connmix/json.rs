//! Reading JSON where it lies (RFC 8259), as connmix's envelope needs it.
//!
//! A document is checked once, completely: grammar, UTF-8, nesting. After that a [`Raw`] is a piece
//! of it that is known to be one valid value, and taking it apart needs no error handling. Numbers
//! are never converted to floats: an integer is read as i64, everything else stays text.
//! Of a key that occurs twice the last value counts, as in PHP, Go and JavaScript.
//!
//! Invariants: nesting never exceeds [`DEPTH_MAX`], so recursion is bounded; time grows with the
//! length of the text. Costs: no allocation, except for strings with escapes (one each).

use std::borrow::Cow;

/// Arrays and objects inside of each other.
pub const DEPTH_MAX: usize = 64;

/// One valid JSON value, as text, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

/// What kind of value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl<'a> Raw<'a> {
    /// The value that the bytes are, with white space around it. `None`: not JSON, not UTF-8 or
    /// nested too deeply.
    pub fn parse(bytes: &'a [u8]) -> Option<Raw<'a>> {
        let text = simdutf8::basic::from_utf8(bytes).ok()?;
        let mut cursor = Cursor { text, at: 0 };
        cursor.space();
        let start = cursor.at;
        cursor.value(0)?;
        let end = cursor.at;
        cursor.space();
        (cursor.at == text.len()).then(|| Raw(&text[start..end]))
    }

    /// The text of the value.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// What kind of value it is.
    pub fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b'n') => Kind::Null,
            Some(b't' | b'f') => Kind::Bool,
            _ => Kind::Number,
        }
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The string that it is; `None` for another kind. Half of a surrogate pair becomes U+FFFD, as
    /// in Go, in which connmix is written.
    pub fn string(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(match memchr::memchr(b'\\', inner.as_bytes()) {
            None => Cow::Borrowed(inner),
            Some(first) => Cow::Owned(unescape(inner, first)),
        })
    }

    /// The integer that it is; `None` for another kind, a fraction, an exponent, or too many digits
    /// for 64 bits.
    pub fn integer(self) -> Option<i64> {
        if self.kind() != Kind::Number {
            return None;
        }
        // A fraction or an exponent is no digit. `-0` is 0.
        self.0.parse().ok()
    }

    /// The members of an object, in order, keys unescaped; empty for another kind.
    pub fn members(self) -> Members<'a> {
        let text = if self.kind() == Kind::Object { self.0 } else { "" };
        Members { cursor: Cursor { text, at: 1 } }
    }

    /// The elements of an array; empty for another kind.
    pub fn elements(self) -> Elements<'a> {
        let text = if self.kind() == Kind::Array { self.0 } else { "" };
        Elements { cursor: Cursor { text, at: 1 } }
    }

    /// The last value that the object has for the key.
    pub fn get(self, key: &str) -> Option<Raw<'a>> {
        self.members().filter(|(name, _)| name == key).map(|(_, value)| value).last()
    }
}

/// See [`Raw::members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Raw<'a>);

    fn next(&mut self) -> Option<(Cow<'a, str>, Raw<'a>)> {
        let cursor = &mut self.cursor;
        cursor.separator();
        let key = cursor.piece()?.string()?;
        cursor.space();
        cursor.eat(b':')?;
        cursor.space();
        Some((key, cursor.piece()?))
    }
}

/// See [`Raw::elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        self.cursor.separator();
        self.cursor.piece()
    }
}

/// Appends a text as a JSON string. Only what must be escaped is.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let digit = |nibble: u8| b"0123456789abcdef"[nibble as usize & 0xf];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(byte >> 4), digit(byte)]);
            }
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// A place in a text. The methods that read give `None` where the text is not JSON.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Skips what stands between two members or elements of a checked text.
    fn separator(&mut self) {
        self.space();
        if self.eat(b',').is_some() {
            self.space();
        }
    }

    /// The next value of a checked text; `None` at the end of its array or object.
    fn piece(&mut self) -> Option<Raw<'a>> {
        let start = self.at;
        self.value(0)?;
        Some(Raw(&self.text[start..self.at]))
    }

    /// Reads one value that stands inside of `depth` others.
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b'"' => self.string(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.open(depth)?;
        if self.eat(b'}').is_some() {
            return Some(());
        }
        loop {
            self.string()?;
            self.space();
            self.eat(b':')?;
            self.space();
            self.value(depth)?;
            self.space();
            if self.eat(b',').is_none() {
                return self.eat(b'}');
            }
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.open(depth)?;
        if self.eat(b']').is_some() {
            return Some(());
        }
        loop {
            self.value(depth)?;
            self.space();
            if self.eat(b',').is_none() {
                return self.eat(b']');
            }
            self.space();
        }
    }

    fn open(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.at += 1;
        self.space();
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let rest = self.text.as_bytes().get(self.at..)?;
        rest.starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    fn string(&mut self) -> Option<()> {
        self.eat(b'"')?;
        let bytes = self.text.as_bytes();
        loop {
            let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
            self.at += bytes[self.at..].iter().position(special)?;
            match bytes[self.at] {
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
        let bytes = self.text.as_bytes();
        let len = match *bytes.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => {
                let digits = bytes.get(self.at + 2..self.at + 6)?;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(6)?
            }
            _ => return None,
        };
        self.at += len;
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let _minus = self.eat(b'-');
        if self.eat(b'0').is_none() {
            self.digits()?;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// The text of a checked string whose first backslash is at `first`.
fn unescape(inner: &str, first: usize) -> String {
    let mut text = String::with_capacity(inner.len());
    let (mut rest, mut next) = (inner, Some(first));
    while let Some(at) = next {
        text.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        rest = &rest[(at + 2).min(rest.len())..];
        text.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => unicode(&mut rest),
            other => char::from(other),
        });
        next = memchr::memchr(b'\\', rest.as_bytes());
    }
    text.push_str(rest);
    text
}

/// The character of a `\u` escape whose digits begin `rest`, and of the second half behind it.
fn unicode(rest: &mut &str) -> char {
    let high = hex4(rest);
    *rest = rest.get(4..).unwrap_or_default();
    if let 0xd800..0xdc00 = high
        && let Some(second) = rest.strip_prefix("\\u")
        && let low @ 0xdc00..0xe000 = hex4(second)
    {
        *rest = second.get(4..).unwrap_or_default();
        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    }
    char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn hex4(text: &str) -> u32 {
    text.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
}
