//! Paths of URLs, as the servers behind them may read them.

/// Whether the path of an absolute URL has a segment `.` or `..` (RFC 3986 section 3.3), so that it
/// leads elsewhere than it seems. What is percent-encoded counts too, however often it was, and so
/// do `\` and encoded slashes between segments, and parameters behind `;`: proxies and servers
/// decode and normalize in orders of their own.
///
/// Costs: one copy of a path that has a dot; its length in time.
pub fn has_dot_segment(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let Some(start) = rest[..end].find(['/', '\\']) else { return false };
    let path = decoded(&rest.as_bytes()[start..end]);
    let mut segments = path.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.any(|segment| {
        let name = segment.split(|byte| *byte == b';').next();
        matches!(name, Some(b"." | b".."))
    })
}

/// Decodes until nothing is left to decode.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        out.push(byte);
        while let [.., b'%', high, low] = out[..] {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            let (Some(high), Some(low)) = (digit(high), digit(low)) else { break };
            out.truncate(out.len() - 3);
            out.push((high << 4 | low) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_climb_are_seen_however_they_are_written() {
        for path in [
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e%2E/b",
            "/a/.%2e",
            "/a/%252e%252e/b",
            "/a/%25252e.",
            "/a/..%2fb",
            "/a/b%2F..",
            "/a%5c..%5Cb",
            "/a\\..\\b",
            "/a/..;x=1/b",
            "/a/..%3bx/b",
            "/a/%2%65./b",
        ] {
            for url in [format!("http://h:1{path}"), format!("https://h{path}?q#f")] {
                assert!(has_dot_segment(&url), "{url}");
            }
        }
    }

    #[test]
    fn dots_elsewhere_are_no_segments() {
        for path in [
            "",
            "/",
            "//",
            "/a.b",
            "/...",
            "/.a",
            "/..a/b..",
            "/%2e%2e%2e",
            "/a%2eb",
            "/a%2",
            "/%",
            "/a?x=/../b",
            "/a#/..",
            "/a?/%2e%2e/",
            "/;../b",
        ] {
            let url = format!("http://h.example.{path}");
            assert!(!has_dot_segment(&url), "{url}");
        }
        assert!(!has_dot_segment("http://.."), "a host is no path");
    }

    #[test]
    fn decoding_takes_time_by_length_alone() {
        let nested = format!("http://h/%{}2e.", "25".repeat(500_000));
        assert!(has_dot_segment(&nested));
    }
}
