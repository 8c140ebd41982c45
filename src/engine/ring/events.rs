//! The way back: completions into events.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;
use rustix::net::{Shutdown, getpeername, shutdown};

use super::queue::Completion;
use super::sockets::{Life, Operation, Receive, Socket, Tag};
use super::{Event, Ring};

impl Ring {
    /// What a completion means for the caller, if anything. Each completion comes here once, in the
    /// order of the kernel; the state of sockets and listeners changes here and with the caller's
    /// operations, nowhere else.
    pub(super) fn translate(&mut self, completion: Completion) -> Option<Event> {
        let tag = Tag::unpack(completion.data)?;
        match tag.kind {
            Operation::Accept => self.accepted(tag, completion),
            Operation::Receive => self.received(tag, completion),
            Operation::Send => self.sent(tag, completion),
            Operation::CancelAccept | Operation::CancelReceive | Operation::CancelSend => {
                self.cancel_failed(tag)
            }
            Operation::Closed => Some(Event::Closed { slot: tag.index }),
            Operation::Wake => {
                if !cqueue::more(completion.flags) {
                    self.arm_waker();
                }
                None
            }
            Operation::Inline | Operation::Close => None,
        }
    }

    fn accepted(&mut self, tag: Tag, completion: Completion) -> Option<Event> {
        let Completion { result, flags, .. } = completion;
        let last = !cqueue::more(flags);
        self.accepting -= usize::from(last);
        // SAFETY: the kernel opened this descriptor for us and names it once.
        let socket = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        let index = tag.index as usize;
        let listener = self.listeners.get_mut(index)?;
        if listener.generation != tag.generation {
            return None;
        }
        listener.armed &= !last;
        listener.fd.as_ref()?;
        let failed = socket.is_none().then_some(-result);
        if last && failed.is_none_or(accept_goes_on) {
            self.relisten(index);
        }
        match socket {
            Some(socket) => {
                let peer = peer(&socket)?;
                Some(Event::Accepted { listener: index, socket, peer })
            }
            None if failed.is_some_and(accept_goes_on) => None,
            None => {
                let error = io::Error::from_raw_os_error(-result);
                Some(Event::AcceptFailed { listener: index, error })
            }
        }
    }

    fn received(&mut self, tag: Tag, completion: Completion) -> Option<Event> {
        let slot = tag.index;
        let data = self.buffers.claim(completion.flags, completion.result);
        let last = !cqueue::more(completion.flags);
        let Some(socket) = self.holder(tag) else {
            data.into_iter().for_each(|data| self.give_back(data));
            return None;
        };
        if last {
            socket.receive = Receive::Off;
        }
        if socket.life == Life::Closing {
            data.into_iter().for_each(|data| self.give_back(data));
            self.free_if_over(slot);
            return None;
        }
        if let Some(data) = data {
            self.arm(slot);
            return Some(Event::Received { slot, data });
        }
        match -completion.result {
            0 => {
                socket.receive = Receive::Ended;
                Some(Event::Ended { slot, error: None })
            }
            libc::ENOBUFS => {
                socket.receive = Receive::Starved;
                self.starved.push_back((slot, tag.generation));
                None
            }
            // The first is the end of a pause, or of a request that the kernel gave up.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {
                self.arm(slot);
                None
            }
            error => {
                socket.receive = Receive::Ended;
                Some(Event::Ended { slot, error: Some(io::Error::from_raw_os_error(error)) })
            }
        }
    }

    fn sent(&mut self, tag: Tag, completion: Completion) -> Option<Event> {
        let slot = tag.index;
        let socket = self.holder(tag)?;
        if socket.life == Life::Closing {
            socket.stalled = None;
            self.free_if_over(slot);
            return None;
        }
        let stalled = socket.stalled.as_mut()?;
        let over = match completion.result {
            0 => Some(Err(io::ErrorKind::WriteZero.into())),
            written @ 1.. => stalled.advance(written as usize).then_some(Ok(())),
            error if error == -libc::EINTR => None,
            error => Some(Err(io::Error::from_raw_os_error(-error))),
        };
        let Some(result) = over else {
            self.send_piece(slot);
            return None;
        };
        let written = stalled.written;
        socket.stalled = None;
        match (&result, &socket.fd) {
            (Err(_), _) => self.cut(slot),
            (Ok(()), Some(fd)) if socket.fin => {
                // ENOTCONN: there is nobody to tell.
                let _ = shutdown(fd, Shutdown::Write);
            }
            _ => {}
        }
        Some(Event::Sent { slot, result: result.map_err(|error| (written, error)) })
    }

    /// The kernel did not find an operation (ENOENT), or was about to carry it out (EALREADY).
    /// Usually its last completion came before this one. If not, it is cancelled once more.
    fn cancel_failed(&mut self, tag: Tag) -> Option<Event> {
        let Tag { kind, generation, index } = tag;
        if kind == Operation::CancelAccept {
            let listener = self.listeners.get(index as usize)?;
            if listener.generation == generation && listener.armed && listener.fd.is_none() {
                self.cancel(Operation::Accept, kind, generation, index);
            }
            return None;
        }
        let socket = self.holder(tag)?;
        if kind == Operation::CancelReceive && socket.receive == Receive::Cancelling {
            self.cancel(Operation::Receive, kind, generation, index);
        } else if kind == Operation::CancelSend && socket.stalled.is_some() {
            self.cancel(Operation::Send, kind, generation, index);
        }
        None
    }

    /// The socket that an operation was started for.
    fn holder(&mut self, tag: Tag) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(tag.index as usize)?;
        let same = socket.generation == tag.generation && socket.life != Life::Free;
        same.then_some(socket)
    }
}

/// Errors of accept(2) that concern one connection or this moment, not the listener.
fn accept_goes_on(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNABORTED
            | libc::EINTR
            | libc::EAGAIN
            | libc::EPERM
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENONET
    )
}

/// `None` if the peer is gone already.
fn peer(socket: &OwnedFd) -> Option<SocketAddr> {
    getpeername(socket).ok().flatten()?.try_into().ok()
}
