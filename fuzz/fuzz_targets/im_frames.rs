//! Bytes of a client through the IM decoder: in one piece, in pieces, and stashed, which must give
//! the same frames; then every frame through a session. The first bytes of the input choose the
//! rules and the pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::config::all::Config;
use ringway::hub::{ConnId, Hub};
use ringway::protocols::im::rules::{Around, Session};
use ringway::protocols::im::wire::{
    ByteOrder, Decoder, Gzip, Header, LenMode, LenRule, LoginFields, Modes, Refusal, Rules,
    Versions,
};

/// The frames of a stream, and how it ended.
type Seen = (Vec<(Header, Vec<u8>)>, Option<Refusal>);

fuzz_target!(|input: &[u8]| {
    let [len, flags, step, stream @ ..] = input else { return };
    let auto = |modes: &[LenMode]| LenRule::Auto(Modes::of(modes).expect("they differ"));
    let len = match len % 6 {
        0 => LenRule::Always(LenMode::Body),
        1 => LenRule::Always(LenMode::Rest),
        2 => LenRule::Always(LenMode::Frame),
        3 => auto(&[LenMode::Rest, LenMode::Body]),
        4 => auto(&[LenMode::Body, LenMode::Frame]),
        _ => auto(&[LenMode::Body, LenMode::Frame, LenMode::Rest]),
    };
    let order = if flags & 4 != 0 { ByteOrder::Little } else { ByteOrder::Big };
    let login = match flags & 8 {
        0 => LoginFields::default(),
        _ => LoginFields { token: 2, user_id: 300 },
    };
    let rules = Rules {
        len,
        order,
        login,
        body_bytes_max: 4096,
        plain_bytes_max: 8192,
        versions: Versions::CURRENT,
        only: (flags & 1 != 0).then_some(1),
    };
    let whole = decode(stream, rules, stream.len().max(1), false);
    let pieces = decode(stream, rules, usize::from(*step).max(1), flags & 2 != 0);
    assert_eq!(whole, pieces);
    session(stream, len, order);
});

fn decode(stream: &[u8], rules: Rules, step: usize, stash: bool) -> Seen {
    let (mut decoder, mut gzip, mut frames) = (Decoder::default(), Gzip::new(), Vec::new());
    for mut piece in stream.chunks(step) {
        if stash {
            decoder.stash(std::mem::take(&mut piece));
        }
        loop {
            match decoder.next(&mut piece, rules, &mut gzip) {
                Ok(Some(frame)) => frames.push((frame.header, frame.body.to_vec())),
                Ok(None) => break,
                Err(refusal) => return (frames, Some(refusal)),
            }
        }
        assert!(stash || decoder.held() <= 4096 + 32, "{} bytes are held", decoder.held());
    }
    (frames, None)
}

/// What clients send never makes a session panic.
fn session(stream: &[u8], len: LenRule, order: ByteOrder) {
    let mut config = Config::demo().im;
    config.len_mode = len;
    config.byte_order = order;
    let mut hub = Hub::new();
    hub.insert(ConnId::new(0, 0, 1));
    hub.subscribe(0, "cr:room-7");
    let (mut session, mut gzip, mut input) = (Session::new(false), Gzip::new(), stream);
    let mut decoder = Decoder::default();
    for now_ms in 0.. {
        let around = Around { rules: &config, hub: &hub, slot: 0, now_ms };
        match decoder.next(&mut input, session.decoding(&config), &mut gzip) {
            Ok(Some(frame)) => _ = session.frame(frame, &around, &mut gzip),
            Ok(None) => break,
            Err(refusal) => {
                session.refused(refusal, decoder.mode(len), &config);
                break;
            }
        }
        let verdict = ringway::hub::login::Verdict::Accepted { profile: None };
        session.verified("u1001", verdict, &around);
    }
}
