//! An HTTP/1.1 server that answers every request at once with nothing, as the upstream of a
//! gateway under test: one thread and one epoll instance for all its connections, so that it takes
//! as little as it can from the CPU that it shares with the load.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::Result;

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n\
                       Content-Length: 0\r\n\r\n";
/// The longest request.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
const EVENTS: usize = 256;
/// The number of the listener among the events; connections have their index.
const LISTENER: u64 = u64::MAX;

/// Starts it; it ends with the process.
pub fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let upstream = Upstream { listener, epoll, peers: Vec::new(), replies: Vec::new() };
    std::thread::Builder::new().name("upstream".to_owned()).spawn(move || {
        if let Err(error) = upstream.run() {
            eprintln!("the upstream has ended: {error}");
        }
    })?;
    Ok(address)
}

struct Upstream {
    listener: TcpListener,
    epoll: OwnedFd,
    peers: Vec<Option<Peer>>,
    /// What is written to one peer at a time.
    replies: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of the input that are filled.
    len: usize,
}

impl Upstream {
    fn run(mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    number => self.serve(number as usize),
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let free = self.peers.iter().position(Option::is_none);
            let number = free.unwrap_or(self.peers.len());
            epoll::add(&self.epoll, &stream, EventData::new_u64(number as u64), EventFlags::IN)?;
            let peer = Some(Peer { stream, input: vec![0; REQUEST_BYTES_MAX], len: 0 });
            match self.peers.get_mut(number) {
                Some(place) => *place = peer,
                None => self.peers.push(peer),
            }
        }
        Ok(())
    }

    /// What goes wrong on a connection ends it, and the gateway makes another.
    fn serve(&mut self, number: usize) {
        self.replies.clear();
        let Some(Some(peer)) = self.peers.get_mut(number) else { return };
        let answered = peer.read(&mut self.replies).and_then(|goes_on| {
            // The gateway waits for each reply, so they always fit.
            peer.stream.write_all(&self.replies)?;
            Ok(goes_on)
        });
        if !matches!(answered, Ok(true)) {
            self.peers[number] = None;
        }
    }
}

impl Peer {
    /// Reads once and appends the replies to what is complete. False: it is the end.
    fn read(&mut self, replies: &mut Vec<u8>) -> io::Result<bool> {
        let count = match self.stream.read(&mut self.input[self.len..]) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        self.len += count;
        let mut used = 0;
        while let Some(len) = request_len(&self.input[used..self.len])? {
            replies.extend_from_slice(REPLY);
            used += len;
        }
        self.input.copy_within(used..self.len, 0);
        self.len -= used;
        match self.len < self.input.len() {
            true => Ok(true),
            false => Err(io::Error::other("a request of the gateway is too long")),
        }
    }
}

/// Bytes of the first request; `None`: it is not complete.
fn request_len(input: &[u8]) -> io::Result<Option<usize>> {
    const NAME: &[u8] = b"Content-Length: ";
    let Some(head) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let at = input[..head].windows(NAME.len()).position(|name| name == NAME);
    let at = at.ok_or_else(|| io::Error::other("a request without length"))?;
    let value = &input[at + NAME.len()..head + 2];
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
    let body = digits.fold(0, |sum: usize, digit| {
        sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
    });
    let whole = body.saturating_add(head + 4);
    Ok((input.len() >= whole).then_some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_at_their_length() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST";
        for end in 0..request.len() - 4 {
            assert_eq!(request_len(&request[..end]).expect("fine"), None);
        }
        assert_eq!(request_len(request).expect("fine"), Some(request.len() - 4));
    }

    #[test]
    fn answers_as_often_as_it_is_asked() {
        let mut stream = TcpStream::connect(start().expect("a port")).expect("it listens");
        let one = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        stream.write_all(&one.repeat(2)).expect("open");
        stream.write_all(&one[..20]).expect("open");
        let mut replies = vec![0; 2 * REPLY.len()];
        stream.read_exact(&mut replies).expect("two replies");
        assert_eq!(replies, REPLY.repeat(2));
        stream.write_all(&one[20..]).expect("open");
        stream.read_exact(&mut replies[..REPLY.len()]).expect("the third");
    }
}
