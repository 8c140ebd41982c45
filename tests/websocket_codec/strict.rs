//! Every close code, and every form of a length.

use ringway::wire::websocket::{CloseCodes, Rules, mask_frame};

use crate::{RULES, Seen, decode};

#[test]
fn every_close_code_is_accepted_or_refused_by_its_table() {
    for code in 0..=u16::MAX {
        // RFC 6455 section 7.4.2: 1000 to 2999 are the protocol's own, of which 7.4.1 and the
        // registry define some and keep 1004 to 1006 and 1015 off the wire.
        let registered = matches!(code, 1000..=1003 | 1007..=1014);
        let free = (3000..5000).contains(&code);
        let seen = decode(&mask_frame(0x88, [4, 3, 2, 1], &code.to_be_bytes()), RULES);
        assert_eq!(matches!(seen[..], [Seen::Close(_)]), registered || free, "{code}: {seen:?}");
        // netsvr specification section 2.5.
        let refused = [1004, 1005, 1006, 1016, 1100, 2000, 2999];
        let netsvr = Rules { close_codes: CloseCodes::Netsvr, ..RULES };
        let seen = decode(&mask_frame(0x88, [4, 3, 2, 1], &code.to_be_bytes()), netsvr);
        let passes = code >= 1000 && !refused.contains(&code);
        assert_eq!(matches!(seen[..], [Seen::Close(_)]), passes, "{code}: {seen:?}");
    }
}

#[test]
fn a_payload_length_has_its_shortest_form() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 65_537_usize] {
        let forms = [
            (len <= 125).then(|| vec![0x80 | len as u8]),
            u16::try_from(len).ok().map(|len| [&[0xfe][..], &len.to_be_bytes()].concat()),
            Some([&[0xff][..], &(len as u64).to_be_bytes()].concat()),
        ];
        let shortest = forms.iter().position(Option::is_some);
        for (i, form) in forms.iter().enumerate() {
            let Some(form) = form else { continue };
            let mut stream = [&[0x82][..], form, &[0; 4]].concat();
            stream.resize(stream.len() + len, 7);
            let expected = match shortest == Some(i) {
                true => Seen::Binary(vec![7; len]),
                false => {
                    let reason = "payload length must have its shortest form".to_owned();
                    Seen::Violation(1002, reason)
                }
            };
            assert!(decode(&stream, RULES) == [expected], "{len} in form {i}");
        }
    }
}
