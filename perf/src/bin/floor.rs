//! The floor: the least that a WebSocket server on io_uring can do. It answers each message to its
//! sender (`floor echo CPU`), or sends it to everybody else (`floor broadcast CPU`). No TLS, no
//! users, topics, timers, limits, metrics; no partial frames: the load generator's fit into one
//! receive. What a real server costs above this is what its features cost.
//!
//! It uses the kernel as the gateway's socket ring does: `SINGLE_ISSUER | DEFER_TASKRUN`, multishot
//! accept and receive with provided buffers, sends that are over within the submission
//! (`MSG_DONTWAIT | MSG_WAITALL`, `IOSQE_CQE_SKIP_SUCCESS`). An echo goes out of the buffer that it
//! came in, without a copy. A send that does not complete at once ends the process: its numbers
//! would be wrong.
//!
//! Costs per message: 64 bytes of submission, 16 bytes of completion for a receive, nothing else.

use std::error::Error;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{self, BufRingEntry};
use io_uring::{IoUring, cqueue, opcode};
use ringway::wire::http::accept_key;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BUFFERS: u16 = 2048;
const BUFFER_BYTES: usize = 4096;
const GROUP: u16 = 0;
const SUBMISSIONS: u32 = 4096;
const COMPLETIONS: u32 = 65_536;
const BACKLOG: i32 = 4096;
/// User data of operations that are not receives. Receives carry their descriptor.
const ACCEPT: u64 = u64::MAX;
const SEND: u64 = u64::MAX - 1;
const OTHER: u64 = u64::MAX - 2;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let cpu = arguments.next().and_then(|cpu| cpu.parse().ok());
    let (Some(cpu), "echo" | "broadcast") = (cpu, mode.as_str()) else {
        return Err("usage: floor echo|broadcast CPU".into());
    };
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)?;
    let listener = listen()?;
    println!("{}", listener.local_addr()?);
    Floor::new(listener, mode == "broadcast")?.run()
}

fn listen() -> Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One received buffer.
#[derive(Clone, Copy)]
struct Received {
    fd: i32,
    buffer: u16,
    len: usize,
}

struct Floor {
    ring: IoUring,
    listener: TcpListener,
    broadcast: bool,
    /// The kernel's list of free buffers, page-aligned; the memory lives as long as the process.
    entries: &'static mut [BufRingEntry],
    /// Where the buffers are.
    buffers: *mut u8,
    tail: u16,
    /// Whether a descriptor has had its 101, by descriptor.
    upgraded: Vec<bool>,
    /// Descriptors of upgraded connections and, by descriptor, their places here.
    members: Vec<i32>,
    places: Vec<usize>,
    /// Bytes that the current submission points at, besides buffers.
    owned: Vec<Vec<u8>>,
    /// Buffers to give back once the current submission is over.
    used: Vec<u16>,
    received: Vec<Received>,
    rearm: Vec<i32>,
}

impl Floor {
    fn new(listener: TcpListener, broadcast: bool) -> Result<Floor> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let buffers = Box::leak(vec![0u8; usize::from(BUFFERS) * BUFFER_BYTES].into_boxed_slice());
        let entries = buffer_ring(&ring)?;
        let mut floor = Floor {
            ring,
            listener,
            broadcast,
            entries,
            buffers: buffers.as_mut_ptr(),
            tail: 0,
            upgraded: Vec::new(),
            members: Vec::new(),
            places: Vec::new(),
            owned: Vec::new(),
            used: (0..BUFFERS).collect(),
            received: Vec::new(),
            rearm: Vec::new(),
        };
        floor.give_back();
        Ok(floor)
    }

    fn run(mut self) -> Result<()> {
        self.accept()?;
        loop {
            self.ring.submit_and_wait(1)?;
            self.owned.clear();
            self.give_back();
            self.collect()?;
            let received = std::mem::take(&mut self.received);
            for &received in &received {
                self.handle(received)?;
            }
            self.received = received;
            self.received.clear();
            for fd in std::mem::take(&mut self.rearm) {
                self.receive(fd)?;
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        let listener = types::Fd(self.listener.as_raw_fd());
        self.push(opcode::AcceptMulti::new(listener).build().user_data(ACCEPT))
    }

    fn receive(&mut self, fd: i32) -> Result<()> {
        self.push(opcode::RecvMulti::new(types::Fd(fd), GROUP).build().user_data(fd as u64))
    }

    fn push(&mut self, entry: Entry) -> Result<()> {
        if self.ring.submission().is_full() {
            // Buffers and owned bytes are kept: the turn that uses them is not over.
            self.ring.submit()?;
        }
        // SAFETY: sends point at a receive buffer or at `owned` bytes. Both are left alone until
        // the next `submit_and_wait` has returned, and an inline send is over when its submission
        // is. All other operations carry numbers only.
        unsafe { self.ring.submission().push(&entry) }.map_err(Into::into)
    }

    fn send(&mut self, fd: i32, bytes: *const u8, len: usize) -> Result<()> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = opcode::Send::new(types::Fd(fd), bytes, len as u32).flags(flags).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(SEND))
    }

    /// Takes completions. Buffers are looked into later: handling may submit.
    fn collect(&mut self) -> Result<()> {
        let completions: Vec<_> = self.ring.completion().collect();
        for completion in completions {
            let (result, more) = (completion.result(), cqueue::more(completion.flags()));
            match completion.user_data() {
                ACCEPT if result >= 0 => {
                    let fd = result as usize;
                    if self.upgraded.len() <= fd {
                        self.upgraded.resize(fd + 1, false);
                        self.places.resize(fd + 1, 0);
                    }
                    self.upgraded[fd] = false;
                    self.rearm.push(result);
                }
                SEND if !matches!(-result, libc::EPIPE | libc::ECONNRESET | libc::EBADF) => {
                    return Err(format!("a send gave {result}: the load does not keep up").into());
                }
                SEND | OTHER => {}
                ACCEPT => return Err(format!("accept gave {result}").into()),
                fd => {
                    let fd = fd as i32;
                    match cqueue::buffer_select(completion.flags()) {
                        Some(buffer) if result > 0 => {
                            self.received.push(Received { fd, buffer, len: result as usize });
                            if !more {
                                self.rearm.push(fd);
                            }
                        }
                        _ if -result == libc::ENOBUFS => self.rearm.push(fd),
                        _ => self.close(fd)?,
                    }
                    continue;
                }
            }
            if completion.user_data() == ACCEPT && !more {
                self.accept()?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, received: Received) -> Result<()> {
        let Received { fd, buffer, len } = received;
        self.used.push(buffer);
        let start = self.buffers.wrapping_add(usize::from(buffer) * BUFFER_BYTES);
        // SAFETY: the kernel has handed the buffer over with the completion and gets it back in
        // `give_back`; `len` is at most BUFFER_BYTES, and no other slice of it is alive.
        let data = unsafe { std::slice::from_raw_parts_mut(start, len) };
        if !self.upgraded[fd as usize] {
            return self.upgrade(fd, data);
        }
        if self.broadcast {
            let mut frames = Vec::with_capacity(len);
            reframe(data, |frame| {
                frames.extend_from_slice(frame);
                Ok(())
            })?;
            let (bytes, len) = (frames.as_ptr(), frames.len());
            self.owned.push(frames);
            for place in 0..self.members.len() {
                if self.members[place] != fd {
                    self.send(self.members[place], bytes, len)?;
                }
            }
            return Ok(());
        }
        reframe(data, |frame| self.send(fd, frame.as_ptr(), frame.len()))
    }

    fn upgrade(&mut self, fd: i32, request: &[u8]) -> Result<()> {
        let key = std::str::from_utf8(request)?
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
            .ok_or("a request without key, or in pieces")?;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nUpgrade: websocket\r\n\r\n",
            accept_key(key.as_bytes())
        );
        self.upgraded[fd as usize] = true;
        self.places[fd as usize] = self.members.len();
        self.members.push(fd);
        let answer = answer.into_bytes();
        let (bytes, len) = (answer.as_ptr(), answer.len());
        self.owned.push(answer);
        self.send(fd, bytes, len)
    }

    fn close(&mut self, fd: i32) -> Result<()> {
        if std::mem::take(&mut self.upgraded[fd as usize]) {
            let place = self.places[fd as usize];
            self.members.swap_remove(place);
            if let Some(&moved) = self.members.get(place) {
                self.places[moved as usize] = place;
            }
        }
        let entry = opcode::Close::new(types::Fd(fd)).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(OTHER))
    }

    fn give_back(&mut self) {
        for buffer in std::mem::take(&mut self.used) {
            let at = usize::from(self.tail % BUFFERS);
            let address = self.buffers.wrapping_add(usize::from(buffer) * BUFFER_BYTES);
            self.entries[at].set_addr(address as u64);
            self.entries[at].set_len(BUFFER_BYTES as u32);
            self.entries[at].set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the tail lies in the first entry, 2-byte aligned, and only this thread writes it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Turns masked frames into unmasked ones, in place, and hands out each.
fn reframe(mut data: &mut [u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    while !data.is_empty() {
        let (header, len) = match *data {
            [_, len @ 128..254, ..] => (2, usize::from(len - 128)),
            [_, 254, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            _ => return Err("a frame that the floor can not read".into()),
        };
        if data.len() < header + 4 + len {
            return Err("a frame in pieces: use smaller messages with the floor".into());
        }
        let (frame, rest) = data.split_at_mut(header + 4 + len);
        let mut key = [0; 4];
        key.copy_from_slice(&frame[header..header + 4]);
        let key = u32::from_ne_bytes(key);
        let mut words = frame[header + 4..].chunks_exact_mut(4);
        for word in &mut words {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(word);
            word.copy_from_slice(&(u32::from_ne_bytes(bytes) ^ key).to_ne_bytes());
        }
        for (byte, key) in words.into_remainder().iter_mut().zip(key.to_ne_bytes()) {
            *byte ^= key;
        }
        frame.copy_within(0..header, 4);
        frame[5] &= 0x7f;
        each(&frame[4..])?;
        data = rest;
    }
    Ok(())
}

/// Registers a ring of provided buffers, empty.
fn buffer_ring(ring: &IoUring) -> Result<&'static mut [BufRingEntry]> {
    let count = usize::from(BUFFERS);
    let bytes = count * size_of::<BufRingEntry>();
    // SAFETY: a new anonymous mapping touches no other memory.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the mapping is page-aligned, of the right size, never unmapped, and the kernel only
    // reads it.
    unsafe {
        ring.submitter().register_buf_ring_with_flags(start as u64, BUFFERS, GROUP, 0)?;
        Ok(std::slice::from_raw_parts_mut(start.cast(), count))
    }
}
