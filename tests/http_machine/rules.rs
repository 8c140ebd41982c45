//! The rules one by one, with the bytes that smugglers use.

use ringway::wire::http::fault::Fault;
use ringway::wire::http::machine::{Event, Machine};

use crate::{BODY_BYTES_MAX, read};

fn fault(stream: &str) -> Option<Fault> {
    read(std::iter::once(stream.as_bytes())).fault
}

/// A request with these header lines, each with its end.
fn with(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

#[test]
fn a_line_of_a_head_ends_with_cr_lf_or_the_request_is_refused_at_once() {
    for head in [
        "\nGET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\r\nHost: h\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\n",
        "GET / HTTP/1.1\nHost: h\n\n",
    ] {
        assert_eq!(fault(head), Some(Fault::LineEnd), "{head:?}");
    }
    for head in ["GET / HTTP/1.1\r\r\n\r\n", "GET / HTTP/1.1\rX\r\n\r\n"] {
        assert_eq!(fault(head), Some(Fault::RequestLine), "{head:?}");
    }
    for lines in ["A: b\rc\r\n", "A: b\r\r\n", "A: b\0\r\n", " A: b\r\n", "A: b\r\n c\r\n"] {
        assert_eq!(fault(&with(lines)), Some(Fault::Field), "{lines:?}");
    }
}

#[test]
fn a_length_that_can_be_understood_in_two_ways_is_refused() {
    for (lines, expected) in [
        ("Content-Length: x\r\n", Fault::Length),
        ("Content-Length:\r\n", Fault::Length),
        ("Content-Length: -1\r\n", Fault::Length),
        ("Content-Length: +1\r\n", Fault::Length),
        ("Content-Length: 0x1\r\n", Fault::Length),
        ("Content-Length: 1, 1\r\n", Fault::Length),
        ("Content-Length: 1 1\r\n", Fault::Length),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", Fault::Lengths),
        ("Content-Length: 1\r\nContent-Length: 01\r\n", Fault::Lengths),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Fault::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", Fault::LengthAndCoding),
        ("Transfer-Encoding: x\r\nContent-Length: 1\r\n", Fault::LengthAndCoding),
        ("Transfer-Encoding: gzip\r\n", Fault::Coding),
        ("Transfer-Encoding:\r\n", Fault::Coding),
        ("Transfer-Encoding: chunked, chunked\r\n", Fault::Coding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::Coding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Fault::Coding),
        ("Content-Length: 1001\r\n", Fault::Body),
        ("Content-Length: 99999999999999999999999999\r\n", Fault::Body),
    ] {
        assert_eq!(fault(&with(lines)), Some(expected), "{lines:?}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(fault(old), Some(Fault::LengthAndCoding));
    let twice = with("Content-Length: 1\r\nContent-Length: 1\r\n") + "x";
    assert_eq!(fault(&twice), None, "a length that is said twice is one");
}

#[test]
fn there_is_one_host_and_it_is_one() {
    for (head, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", Some(Fault::NoHost)),
        ("GET http://h/ HTTP/1.1\r\n\r\n", Some(Fault::NoHost)),
        ("GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n", Some(Fault::Hosts)),
        ("GET / HTTP/1.0\r\nHost: h\r\nHost: i\r\n\r\n", Some(Fault::Hosts)),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Some(Fault::Host)),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Some(Fault::Host)),
        ("GET / HTTP/1.1\r\nHost: h:x\r\n\r\n", Some(Fault::Host)),
        ("GET / HTTP/1.0\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", None),
    ] {
        assert_eq!(fault(head), expected, "{head:?}");
    }
}

#[test]
fn an_absolute_target_has_the_host_that_counts() {
    let story = read(std::iter::once(&b"GET ws://a:1/b?c HTTP/1.1\r\nHost: x\r\n\r\n"[..]));
    assert_eq!(story.requests[0].host, b"a:1");
}

#[test]
fn a_body_that_nobody_wants_is_read_as_one_all_the_same() {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let next = "GET /next HTTP/1.1\r\nHost: h\r\n\r\n";
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "FOO"] {
        for (line, body) in [
            (format!("Content-Length: {}", hidden.len()), hidden),
            ("Transfer-Encoding: chunked".to_owned(), &*chunk),
        ] {
            let stream = format!("{method} / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n{body}{next}");
            let story = read(std::iter::once(stream.as_bytes()));
            let targets: Vec<_> = story.requests.iter().map(|read| &*read.target).collect();
            assert_eq!(targets, [&b"/"[..], b"/next"], "{method} {line}");
            assert_eq!(story.requests[0].body, hidden.as_bytes());
        }
    }
}

#[test]
fn a_client_is_asked_for_its_body_once_and_only_if_it_waits() {
    let head = with("Expect: 100-continue\r\nContent-Length: 3\r\n");
    let asked = |pieces: &[&str]| {
        let story = read(pieces.iter().map(|piece| piece.as_bytes()));
        assert_eq!((story.requests.len(), story.fault), (1, None));
        story.asked
    };
    assert_eq!(asked(&[&head, "a", "b", "c"]), 1);
    assert_eq!(asked(&[&(head.clone() + "a"), "bc"]), 0, "it does not wait");
    assert_eq!(asked(&[&(head.clone() + "abc")]), 0);
    assert_eq!(asked(&[&head.replace("3", "0")]), 0, "there is nothing to ask for");
    assert_eq!(asked(&[&head.replace("HTTP/1.1", "HTTP/1.0"), "abc"]), 0, "it does not know it");
    let chunked = with("Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n");
    assert_eq!(asked(&[&chunked, "0\r\n\r\n"]), 1);
}

#[test]
fn nothing_is_read_behind_the_end() {
    let mut machine = Machine::default();
    let one = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(3);
    let mut rest = &*one;
    assert!(matches!(machine.next(&mut rest, BODY_BYTES_MAX), Some(Event::Request(_))));
    machine.end();
    assert!(machine.next(&mut rest, BODY_BYTES_MAX).is_none() && rest.is_empty());
    assert!(machine.is_over() && !machine.is_partial() && machine.held() == 0);
}

#[test]
fn every_fault_has_a_status_and_a_text() {
    for fault in Fault::ALL {
        assert!(["400 ", "413 ", "431 ", "501 "].contains(&&fault.status()[..4]), "{fault:?}");
        assert!(fault.text().is_ascii() && !fault.text().contains('"'), "{fault:?}");
    }
}
