//! What a machine can lack: descriptors, sizes. The tests that lower the limit of the process run
//! in a process of their own: the test starts itself again, and the child does the work.

use std::fs::File;
use std::net::TcpStream;
use std::process::Command;

use ringway::engine::ring::{Event, Ring, Settings, SetupError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::*;

const CHILD: &str = "RING_TEST_CHILD";

/// `true` in the child. In the parent, runs the test of this name again as a child.
fn in_child(name: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    false
}

/// Leaves so many descriptors to this process as long as the result lives.
fn leave_descriptors(count: usize) -> Vec<File> {
    let limit = Rlimit { current: Some(100), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    held.truncate(held.len() - count);
    held
}

#[test]
fn accepting_at_the_descriptor_limit_fails_and_goes_on() {
    if !in_child("limits::accepting_at_the_descriptor_limit_fails_and_goes_on") {
        return;
    }
    let mut bench = Bench::new();
    let listening = listener(0);
    let to = listening.local_addr().unwrap().as_socket().unwrap();
    // The peers have their descriptors before there are none left.
    let peers: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(to).unwrap()).collect();
    let held = leave_descriptors(4);
    bench.ring.listen(0, listening.into());
    let mut accepted = 0;
    let error = loop {
        match bench.event() {
            Event::Accepted { socket, .. } => {
                bench.ring.adopt(accepted, socket);
                accepted += 1;
            }
            Event::AcceptFailed { listener: 0, error } => break error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(error.raw_os_error(), Some(24), "EMFILE: {error}");
    assert_eq!(accepted, 4);
    // It does not try by itself.
    bench.idle();
    // Nor does another try help before there is a descriptor.
    bench.ring.relisten(0);
    assert!(matches!(bench.event(), Event::AcceptFailed { listener: 0, .. }));
    let mut seen = accepted;
    while seen < 8 {
        bench.close(0);
        bench.ring.relisten(0);
        match bench.event() {
            Event::Accepted { socket, .. } => bench.ring.adopt(0, socket),
            other => panic!("{other:?}"),
        }
        seen += 1;
        if seen < 8 {
            assert!(matches!(bench.event(), Event::AcceptFailed { listener: 0, .. }));
        }
    }
    drop((held, peers));
}

#[test]
fn a_ring_without_a_descriptor_says_what_to_do() {
    if !in_child("limits::a_ring_without_a_descriptor_says_what_to_do") {
        return;
    }
    let _held = leave_descriptors(0);
    let error = Ring::new(&settings()).err().unwrap();
    assert!(matches!(error, SetupError::Descriptors { .. }), "{error}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
}

#[test]
fn wrong_sizes_are_refused_by_name() {
    let good = settings();
    let wrong = [
        ("submission_entries", Settings { submission_entries: 0, ..good.clone() }),
        ("submission_entries", Settings { submission_entries: 32769, ..good.clone() }),
        ("completion_entries", Settings { completion_entries: 255, ..good.clone() }),
        ("buffers", Settings { buffers: 0, ..good.clone() }),
        ("buffers", Settings { buffers: 100, ..good.clone() }),
        ("buffer_bytes", Settings { buffer_bytes: 63, ..good.clone() }),
        ("buffer_bytes", Settings { buffer_bytes: (16 << 20) + 1, ..good.clone() }),
    ];
    for (field, settings) in wrong {
        match Ring::new(&settings) {
            Err(SetupError::Size { name, .. }) => assert_eq!(name, field),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{settings:?} was taken"),
        }
    }
}

/// Buffers that no machine can map are an error of memory, not a crash.
#[test]
fn too_many_bytes_of_buffers_are_an_error() {
    if !in_child("limits::too_many_bytes_of_buffers_are_an_error") {
        return;
    }
    // 1 GiB more than there is; AddressSanitizer alone takes terabytes.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kilobytes: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    let current = Some((kilobytes << 10) + (1 << 30));
    setrlimit(Resource::As, Rlimit { current, ..getrlimit(Resource::As) }).unwrap();
    let error = Ring::new(&Settings { buffers: 1 << 15, buffer_bytes: 1 << 20, ..settings() });
    assert!(matches!(error.err().unwrap(), SetupError::Memory { .. }));
}

#[test]
fn the_largest_and_the_smallest_ring_work() {
    let largest = Settings {
        submission_entries: 32768,
        completion_entries: 1 << 20,
        buffers: 1 << 15,
        buffer_bytes: 2048,
    };
    let smallest =
        Settings { submission_entries: 1, completion_entries: 1, buffers: 1, buffer_bytes: 64 };
    for settings in [largest, smallest] {
        let mut bench = Bench::with(settings);
        let mut peer = bench.connect(0);
        std::io::Write::write_all(&mut peer, &[1; 1000]).unwrap();
        assert_eq!(bench.receive(0, 1000), [1; 1000]);
        bench.close(0);
    }
}
