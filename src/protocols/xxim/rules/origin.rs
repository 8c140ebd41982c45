//! Where a client comes from, as its handshake tells it (specification sections 1.1, 1.7 and 7.1).

use std::collections::BTreeMap;

use crate::protocols::xxim::wire::Identity;
use crate::wire::http;
use crate::wire::origin::{self, Origins};

/// The first value of each header, ascending, under the names by which the original tells them
/// (`ConnParam.headers`): the first letter and each one behind a hyphen are capital, the others
/// are not.
pub fn first_values(headers: Vec<(String, String)>) -> std::sync::Arc<[(String, String)]> {
    let mut values = BTreeMap::new();
    for (mut name, value) in headers {
        name.make_ascii_lowercase();
        values.entry(canonical(&name)).or_insert(value);
    }
    values.into_iter().collect()
}

/// A name in lower case as Go writes it.
fn canonical(name: &str) -> String {
    let mut capital = true;
    let letter = |letter: char| {
        let written = if capital { letter.to_ascii_uppercase() } else { letter };
        capital = letter == '-';
        written
    };
    name.chars().map(letter).collect()
}

/// The login of the query of a handshake, whose other parameters go into the identity. `None`:
/// user or token is missing, so that nothing of the query counts.
pub fn query_login(query: &str, identity: &mut Identity) -> Option<(String, String)> {
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        values.entry(name).or_insert_with(|| decoded(value));
    }
    let user = values.remove("userId").filter(|user| !user.is_empty())?;
    let token = values.remove("token").filter(|token| !token.is_empty())?;
    let mut take = |name: &str| values.remove(name).unwrap_or_default();
    identity.platform = take("platform");
    identity.device_id = take("deviceId");
    identity.device_model = take("deviceModel");
    identity.os_version = take("osVersion");
    identity.app_version = take("appVersion");
    identity.language = take("language");
    identity.network_used = take("networkUsed");
    Some((user, token))
}

/// Percent-decoding of a query value; what is not UTF-8 is replaced.
fn decoded(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => {
                        out.push(byte);
                        rest = &after[2..];
                    }
                    None => out.push(b'%'),
                }
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Header lines that let a browser of another origin in: those that are listed, and `localhost`.
/// `None`: there is a list, and the page is not in it.
pub fn cors(request: &http::Request<'_>, listed: &Origins) -> Option<Box<str>> {
    let origin = origin::of(request);
    let text = std::str::from_utf8(&origin).unwrap_or_default();
    let local = text.strip_prefix("http://localhost");
    let local = local.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    if !local && !listed.lists(&origin) {
        return (origin.is_empty() || listed.is_empty()).then(Box::default);
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    let lines = format!(
        "Access-Control-Allow-Origin: {text}\r\nAccess-Control-Allow-Credentials: true\r\n\
         Access-Control-Allow-Methods: POST, OPTIONS\r\n\
         Access-Control-Allow-Headers: Content-Type\r\nVary: Origin\r\n"
    );
    Some(if plain { lines.into() } else { Box::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_counts_only_with_user_and_token() {
        let mut identity = Identity::default();
        assert_eq!(query_login("userId=a&platform=ios", &mut identity), None);
        assert_eq!(identity, Identity::default());
        let login = query_login("userId=a%20b&token=t+1&platform=ios&deviceId=%zz", &mut identity);
        assert_eq!(login, Some(("a b".into(), "t 1".into())));
        assert_eq!((&*identity.platform, &*identity.device_id), ("ios", "%zz"));
    }

    #[test]
    fn the_first_value_of_a_header_counts() {
        let headers = [("user-AGENT", "1"), ("a", "2"), ("User-Agent", "3")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let values = first_values(headers);
        assert_eq!(*values, [("A".into(), "2".into()), ("User-Agent".into(), "1".into())]);
    }
}
