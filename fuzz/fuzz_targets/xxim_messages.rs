//! Messages of xxim clients: whatever arrives, a request or its partial fields come out, and what
//! is put into a request is the only identity in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::protocols::xxim::wire::cipher::Cipher;
use ringway::protocols::xxim::wire::{
    ClientRequest, Leniency, Params, UserParams, Version, inject, inject_send_msg_list, is_method,
    tcp,
};

fuzz_target!(|data: &[u8]| {
    let request = ClientRequest::parse(data).unwrap_or_else(|partial| partial);
    let _ = is_method(request.method);
    let leniency = Leniency { lenient: true, legacy: true };
    for path in [Version::V1, Version::V2] {
        let _ = Params::parse(data, path, leniency);
    }
    let _ = UserParams::parse(data);
    if let Ok(body) = inject(data, 1, b"\x0a\x01u") {
        assert!(body.ends_with(b"\x0a\x03\x0a\x01u"));
        assert_eq!(inject(&body, 1, b"\x0a\x01u"), Ok(body));
    }
    for rewrite in [false, true] {
        let _ = inject_send_msg_list(data, rewrite, b"\x0a\x01u");
    }
    let mut sealed = data.to_vec();
    let _ = Cipher::new(b"key", b"iv").decrypt(&mut sealed);
    let mut reader = tcp::FrameReader::default();
    let mut input = data;
    while let Ok(Some(_)) = reader.next(&mut input, 1 << 20) {}
});
