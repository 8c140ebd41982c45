//! A room with 15,000 real connections: the gateway in a process of its own, as each end of a
//! connection takes a descriptor.

mod common;

#[path = "faults/binary.rs"]
mod binary;

use std::io::{Read, Write};
use std::net::TcpStream;

use prost::Message;
use ringway::config::raise_nofile;
use ringway::protocols::im::wire::proto::{
    ChatroomRequest, CrMessage, CrMessageResponse, LoginRequest,
};
use ringway::protocols::im::wire::{ByteOrder, HEADER_BYTES, Header};

use binary::Binary;
use common::connect;

const MEMBERS: usize = 15_000;
/// Descriptors that this process needs for other things.
const RESERVED: u64 = 500;
const SENDERS: usize = 5;
const MESSAGES: usize = 4;
/// Of the listener that is added to those of [`Binary`].
const IM: usize = 3;
const SETTINGS: &str = r#"
[[listener]]
bind = "127.0.0.1:0"
protocol = "im"

[im]
idle_timeout = "10m"
cms_rate = 0
"#;

fn frame(command: u8, message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let header = Header { len: body.len() as u32, seq: 1, command, flag: 0x10, status: 0 };
    [&header.bytes(ByteOrder::Big)[..], &body].concat()
}

fn enter(user: Option<String>) -> Vec<u8> {
    let login = match user {
        Some(user_id) => frame(1, &LoginRequest { token: "token".to_owned(), user_id }),
        None => frame(1, &()),
    };
    [login, frame(5, &ChatroomRequest { chatroom_id: "arena".to_owned() })].concat()
}

/// The next frame.
fn read(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; HEADER_BYTES];
    socket.read_exact(&mut header).expect("the gateway stays");
    let header = Header::parse(&header, ByteOrder::Big);
    assert_eq!(header.status, 0);
    let mut body = vec![0; header.len as usize];
    socket.read_exact(&mut body).expect("the gateway stays");
    (header.command, body)
}

#[test]
fn every_member_of_a_room_of_fifteen_thousand_gets_every_message() {
    let members = MEMBERS.min(raise_nofile().saturating_sub(RESERVED) as usize);
    assert!(members >= 100, "there are hardly any descriptors: `ulimit -n`");
    println!("{members} members");
    let server = Binary::start(SETTINGS);
    let mut sockets: Vec<TcpStream> = Vec::with_capacity(members);
    for number in 0..members {
        let mut socket = connect(server.address(IM));
        let user = (number < SENDERS).then(|| format!("user-{number}"));
        socket.write_all(&enter(user)).expect("the gateway reads");
        sockets.push(socket);
    }
    for socket in &mut sockets {
        assert_eq!((read(socket).0, read(socket).0), (1, 5));
    }
    for number in 0..MESSAGES {
        for (sender, socket) in sockets.iter_mut().enumerate().take(SENDERS) {
            let message_content = format!("{sender}.{number}").into_bytes().into();
            let to = "arena".to_owned();
            let cms = CrMessage { message_content, to, ..CrMessage::default() };
            socket.write_all(&frame(7, &cms)).expect("the gateway reads");
        }
    }
    let mut order: Option<Vec<Vec<u8>>> = None;
    for (number, socket) in sockets.iter_mut().enumerate().rev() {
        let senders = SENDERS - usize::from(number < SENDERS);
        let mut heard: Vec<Vec<u8>> = Vec::new();
        while heard.len() < senders * MESSAGES {
            let (command, body) = read(socket);
            assert_eq!(command, 8);
            let batch = CrMessageResponse::decode(&*body).expect("messages");
            heard.extend(batch.messages.into_iter().map(|m| m.message_content.to_vec()));
        }
        if number >= SENDERS {
            let order = order.get_or_insert_with(|| heard.clone());
            assert_eq!(&heard, order, "member {number}: one order for all");
        } else {
            let own = format!("{number}.");
            assert!(!heard.iter().any(|content| content.starts_with(own.as_bytes())));
        }
    }
    for sender in 0..SENDERS {
        let own = format!("{sender}.");
        let order = order.iter().flatten().filter(|content| content.starts_with(own.as_bytes()));
        let expected = (0..MESSAGES).map(|number| format!("{sender}.{number}").into_bytes());
        assert_eq!(order.cloned().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}
