//! Answers (RFC 9112 section 4). Costs: one allocation per answer.

use super::date::Date;

/// How the answer to a request is to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// The connection ends after it.
    pub ends: bool,
    /// Its body is only told of: the request was a HEAD (RFC 9110 section 9.3.2).
    pub bodiless: bool,
    /// The request was HTTP/1.0, whose connections end unless the answer says that they do not.
    pub is_1_0: bool,
}

impl Manner {
    /// Of an answer that ends the connection.
    pub const LAST: Manner = Manner { ends: true, bodiless: false, is_1_0: false };
}

/// An answer of any status but 1xx.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// Status code and reason phrase.
    pub status: &'a str,
    /// Whole header lines.
    pub headers: &'a str,
    /// Asks for a WebSocket (RFC 9110 section 15.5.22).
    pub upgrade: bool,
    /// Media type and body; `None` only for a status that has none, as 204.
    pub content: Option<(&'a str, &'a [u8])>,
}

impl Answer<'_> {
    /// The bytes of the answer.
    pub fn encode(&self, manner: Manner, date: &Date) -> Vec<u8> {
        let connection: &[u8] = match (self.upgrade, manner.ends) {
            (true, true) => b"Upgrade: websocket\r\nConnection: Upgrade, close\r\n",
            (true, false) => b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
            (false, true) => b"Connection: close\r\n",
            (false, false) if manner.is_1_0 => b"Connection: keep-alive\r\n",
            (false, false) => b"",
        };
        let (media, body) = self.content.unwrap_or_default();
        let mut digits = [0; 20];
        let length = decimal(body.len() as u64, &mut digits);
        let content: [&[u8]; 4] = match self.content {
            Some(_) => [b"\r\nContent-Type: ", media.as_bytes(), b"\r\nContent-Length: ", length],
            None => [b""; 4],
        };
        let [a, b, c, d] = content;
        let parts: [&[u8]; 12] = [
            b"HTTP/1.1 ",
            self.status.as_bytes(),
            b"\r\nDate: ",
            date.text(),
            a,
            b,
            c,
            d,
            b"\r\n",
            connection,
            self.headers.as_bytes(),
            b"\r\n",
        ];
        let mut answer = parts.concat();
        if !manner.bodiless {
            answer.extend_from_slice(body);
        }
        answer
    }
}

/// The digits of a number, at the end of `buffer`.
pub fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: Answer<'_>, manner: Manner) -> String {
        let bytes = answer.encode(manner, &Date::new(784_111_777));
        String::from_utf8(bytes).expect("it is text")
    }

    #[test]
    fn an_answer_says_what_it_has_and_what_becomes_of_the_connection() {
        let answer = Answer {
            status: "404 Not Found",
            headers: "A: b\r\n",
            content: Some(("text/plain", b"not found")),
            ..Answer::default()
        };
        let head = "HTTP/1.1 404 Not Found\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                    Content-Type: text/plain\r\nContent-Length: 9\r\n";
        let stays = Manner::default();
        assert_eq!(text(answer, stays), format!("{head}A: b\r\n\r\nnot found"));
        let close = format!("{head}Connection: close\r\nA: b\r\n\r\n");
        assert_eq!(text(answer, Manner::LAST), format!("{close}not found"));
        assert_eq!(text(answer, Manner { bodiless: true, ..Manner::LAST }), close);
        let old = text(answer, Manner { is_1_0: true, ..stays });
        assert!(old.contains("\r\nConnection: keep-alive\r\n"), "{old}");
    }

    #[test]
    fn one_without_content_has_no_length_and_an_upgrade_is_named_twice() {
        let answer = Answer { status: "204 No Content", ..Answer::default() };
        let head = "HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        assert_eq!(text(answer, Manner::default()), format!("{head}\r\n"));
        let answer = Answer { upgrade: true, ..answer };
        let upgrade = format!("{head}Upgrade: websocket\r\nConnection: Upgrade");
        assert_eq!(text(answer, Manner::default()), format!("{upgrade}\r\n\r\n"));
        assert_eq!(text(answer, Manner::LAST), format!("{upgrade}, close\r\n\r\n"));
    }
}
