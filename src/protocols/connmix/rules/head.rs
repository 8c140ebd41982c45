//! The handshake of a WebSocket client, as rules and workers see it (connmix section 3.5).

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::wire::json::push_texts;

/// The request of a handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub path: String,
    /// Not decoded, without `?`.
    pub query: String,
    /// Names as they came.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The values of a header, joined. Names are compared without case.
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let mut value = Cow::Borrowed(values.next()?.1.as_str());
        for (_, next) in values {
            value.to_mut().push_str(", ");
            value.to_mut().push_str(next);
        }
        Some(value)
    }

    /// The first value of a query parameter, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut found = pairs.filter(|(key, _)| decoded(key) == name);
        found.next().map(|(_, value)| decoded(value))
    }

    /// Appends all headers as a JSON object: canonical names, sorted, with the pseudo-headers of
    /// the request line.
    pub fn push_headers(&self, out: &mut String) {
        let uri = match self.query.as_str() {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        };
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &self.headers {
            let joined = all.entry(canonical(name)).or_default();
            if !joined.is_empty() {
                joined.push_str(", ");
            }
            joined.push_str(value);
        }
        let request = [("Method", "GET"), ("RequestUri", &uri), ("ServerProtocol", "HTTP/1.1")];
        all.extend(request.map(|(name, value)| (name.to_owned(), value.to_owned())));
        push_table(out, &all);
    }

    /// Appends the query as a JSON object, decoded and sorted; of a repeated name the first value.
    pub fn push_query(&self, out: &mut String) {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.entry(decoded(name)).or_insert_with(|| decoded(value));
        }
        push_table(out, &all);
    }
}

/// An empty object is written as `[]` (section 3.5: the empty table).
fn push_table(out: &mut String, table: &BTreeMap<String, String>) {
    if table.is_empty() {
        return out.push_str("[]");
    }
    push_texts(out, table.iter().map(|(name, value)| (name.as_str(), value.as_str())));
}

/// `x-real-ip` as `X-Real-Ip`.
fn canonical(name: &str) -> String {
    let mut upper = true;
    let letter = |c: char| {
        let c = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        upper = c == '-';
        c
    };
    name.chars().map(letter).collect()
}

/// `application/x-www-form-urlencoded`; what is not UTF-8 is replaced, what is no escape stays.
fn decoded(text: &str) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digit = |offset: usize| (*bytes.get(at + offset)? as char).to_digit(16);
        match (byte, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 2;
            }
            (b'+', _, _) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_one_string_each_with_canonical_names() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let head = Head {
            path: "/chat".into(),
            query: "a=%41+b&flag&a=2&%".into(),
            headers: vec![header("x-real-ip", "1"), header("HOST", "h"), header("X-Real-IP", "2")],
        };
        let mut out = String::new();
        head.push_headers(&mut out);
        let expected = concat!(
            r#"{"Host":"h","Method":"GET","RequestUri":"/chat?a=%41+b&flag&a=2&%","#,
            r#""ServerProtocol":"HTTP/1.1","X-Real-Ip":"1, 2"}"#
        );
        assert_eq!(out, expected);
        assert_eq!(head.header("X-REAL-ip").unwrap(), "1, 2");
        assert_eq!(head.query("a").unwrap(), "A b");
        assert_eq!((head.query("flag").unwrap(), head.query("b")), (String::new(), None));
        let mut out = String::new();
        head.push_query(&mut out);
        assert_eq!(out, r#"{"%":"","a":"A b","flag":""}"#);
        let mut out = String::new();
        Head::default().push_query(&mut out);
        assert_eq!(out, "[]");
    }
}
