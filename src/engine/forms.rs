//! The wire formats of one push: each is made when the first connection needs it, and shared by the
//! others.
//!
//! A connection says in its `form` which one it gets; the numbers are given out by the list of
//! protocols. So a delivery looks at the connection alone, and a protocol is asked once per push
//! and format.

use bytes::Bytes;

use crate::engine::ops::Frame;
use crate::hub::push::{Format, Payload};
use crate::wire::websocket::{self, Opcode};

/// The form of connections that get no pushes.
pub const NONE: u8 = 0;

/// What a payload becomes in one form.
#[derive(Clone, Debug)]
pub enum Made {
    /// The same frame for all.
    Frame(Frame),
    /// Each connection encrypts it with its own seal.
    Sealed(Bytes),
    /// There is no frame that could hold it.
    Nothing,
}

/// The payload in one WebSocket message.
#[inline]
pub fn message(payload: &Payload, opcode: Opcode) -> Frame {
    let format = match opcode {
        Opcode::Text => Format::WS_TEXT,
        Opcode::Binary => Format::WS_BINARY,
    };
    Frame::new(payload.format(format, |raw| websocket::frame(opcode, raw)).clone())
}

/// One form of a push.
#[derive(Debug)]
pub struct Form {
    pub form: u8,
    pub made: Made,
    /// To how many connections it was to go.
    pub count: u64,
    /// The first of them, if how long they take is measured.
    pub measured: Option<u32>,
}

/// Those that were needed so far.
#[derive(Debug, Default)]
pub struct Forms {
    list: Vec<Form>,
    last: usize,
}

impl Forms {
    /// The payload in this form; if it is not there yet `make` makes it, and says whether it is for
    /// a connection that is measured.
    #[inline]
    pub fn get(&mut self, form: u8, make: impl FnOnce() -> (Made, Option<u32>)) -> &Made {
        if self.list.get(self.last).is_none_or(|last| last.form != form) {
            let found = self.list.iter().position(|other| other.form == form);
            self.last = found.unwrap_or_else(|| {
                let (made, measured) = make();
                self.list.push(Form { form, made, count: 0, measured });
                self.list.len() - 1
            });
        }
        let last = &mut self.list[self.last];
        last.count += 1;
        &last.made
    }

    /// Forgets them; what they took is kept for the next push.
    pub fn clear(&mut self) {
        self.list.clear();
        self.last = 0;
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Form> {
        self.list.iter()
    }
}
