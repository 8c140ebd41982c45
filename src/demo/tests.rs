//! The demo business process against a gateway that is played by the test, over real TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::application::Application;
use super::link::put;
use super::{Business, Process, launch};
use crate::protocols::netsvr::wire::Generation;
use crate::wire::worker::Cmd;
use crate::wire::worker::proto as pb;

const UNIQ_ID: &str = "7f00000117ae65e5a1000000002a";
const PATIENCE: Duration = Duration::from_secs(10);

/// The gateway's side: both listeners and, once the business has registered, both connections.
struct Gateway {
    worker_listener: TcpListener,
    task_listener: TcpListener,
}

struct Connections {
    worker: TcpStream,
    task: TcpStream,
}

impl Gateway {
    fn new() -> Gateway {
        Gateway {
            worker_listener: TcpListener::bind("127.0.0.1:0").expect("bind"),
            task_listener: TcpListener::bind("127.0.0.1:0").expect("bind"),
        }
    }

    fn business(&self) -> Business {
        launch(Process {
            worker: self.worker_listener.local_addr().expect("bound"),
            task: self.task_listener.local_addr().expect("bound"),
            worker_heartbeat: b"beat".to_vec(),
            task_heartbeat: b"beat".to_vec(),
            application: Application::new(Generation::G6),
            registered: Arc::default(),
            retry_pause: Duration::ZERO,
        })
        .expect("a thread")
    }

    /// Accepts both connections and answers the registration.
    fn accept(&self) -> Connections {
        let accept = |listener: &TcpListener| {
            let (stream, _) = listener.accept().expect("accept");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream
        };
        let task = accept(&self.task_listener);
        let mut worker = accept(&self.worker_listener);
        let mut register = [0; 10];
        worker.read_exact(&mut register).expect("a registration");
        // netsvr vector V2: all events.
        assert_eq!(register, [0, 0, 0, 6, 0x35, 0xa4, 0xf4, 0xb9, 8, 7]);
        let answer = pb::RegisterResp { conn_id: "me".to_owned(), ..Default::default() };
        send(&mut worker, Cmd::Register, &answer);
        Connections { worker, task }
    }
}

fn frame(cmd: Cmd, message: &impl Message) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    assert!(put(&mut out, cmd, message));
    out.to_vec()
}

fn send(stream: &mut TcpStream, cmd: Cmd, message: &impl Message) {
    stream.write_all(&frame(cmd, message)).expect("write");
}

fn receive(stream: &mut TcpStream) -> (u32, Vec<u8>) {
    let mut head = [0; 8];
    stream.read_exact(&mut head).expect("a frame");
    let [a, b, c, d, cmd @ ..] = head;
    let mut body = vec![0; u32::from_be_bytes([a, b, c, d]) as usize - 4];
    stream.read_exact(&mut body).expect("the rest of a frame");
    (u32::from_be_bytes(cmd), body)
}

fn receive_cast(stream: &mut TcpStream) -> pb::SingleCast {
    let (cmd, body) = receive(stream);
    assert_eq!(cmd, Cmd::SingleCast as u32);
    pb::SingleCast::decode(body.as_slice()).expect("a SingleCast")
}

fn said(text: &[u8]) -> pb::Transfer {
    pb::Transfer { uniq_id: UNIQ_ID.to_owned(), data: text.to_vec().into(), ..Default::default() }
}

#[test]
fn clients_are_welcomed_and_plain_text_comes_back() {
    let gateway = Gateway::new();
    let business = gateway.business();
    let mut connections = gateway.accept();
    assert!(business.wait_registered(PATIENCE));
    let open = pb::ConnOpen6 { uniq_id: UNIQ_ID.to_owned(), ..Default::default() };
    send(&mut connections.worker, Cmd::ConnOpen, &open);
    send(&mut connections.worker, Cmd::Transfer, &said(b"hi"));
    let welcome = receive_cast(&mut connections.task);
    let welcome: serde_json::Value = serde_json::from_slice(&welcome.data).expect("JSON");
    assert_eq!(welcome["cmd"], 1);
    assert_eq!(welcome["data"]["code"], 0);
    assert_eq!(welcome["data"]["data"]["uniqId"], UNIQ_ID);
    let echo = receive_cast(&mut connections.task);
    assert_eq!((echo.uniq_id.as_str(), &echo.data[..]), (UNIQ_ID, &b"hi"[..]));
}

#[test]
fn queries_are_pipelined_and_answered_in_order() {
    let gateway = Gateway::new();
    let _business = gateway.business();
    let mut connections = gateway.accept();
    for cmd in [6, 11, 6] {
        let request = format!("{{\"cmd\":{cmd},\"data\":\"{{}}\"}}");
        send(&mut connections.worker, Cmd::Transfer, &said(request.as_bytes()));
    }
    let queries = [Cmd::UniqIdCount, Cmd::TopicCount, Cmd::UniqIdCount];
    for query in queries {
        assert_eq!(receive(&mut connections.task), (query as u32, Vec::new()));
    }
    for (number, query) in (1..).zip(queries) {
        send(&mut connections.task, query, &pb::UniqIdCountResp { count: number });
    }
    for (number, cmd) in (1..).zip([6, 11, 6]) {
        let answer = receive_cast(&mut connections.task);
        let answer: serde_json::Value = serde_json::from_slice(&answer.data).expect("JSON");
        assert_eq!(
            (&answer["cmd"], &answer["data"]["data"]["count"]),
            (&cmd.into(), &number.into())
        );
    }
}

#[test]
fn stop_handles_what_was_under_way_before_the_answer_to_unregister() {
    let gateway = Gateway::new();
    let business = gateway.business();
    let mut connections = gateway.accept();
    assert!(business.wait_registered(PATIENCE));
    let stopping = std::thread::spawn(move || business.stop());
    let (cmd, body) = receive(&mut connections.worker);
    assert_eq!(cmd, Cmd::Unregister as u32);
    let request = pb::UnRegisterReq::decode(body.as_slice()).expect("an UnRegisterReq");
    assert_eq!(request.conn_id, "me");
    send(&mut connections.worker, Cmd::Transfer, &said(b"late"));
    send(&mut connections.worker, Cmd::Transfer, &said(br#"{"cmd":6}"#));
    send(&mut connections.worker, Cmd::Unregister, &pb::UnRegisterResp {});
    assert_eq!(&receive_cast(&mut connections.task).data[..], b"late");
    assert_eq!(receive(&mut connections.task).0, Cmd::UniqIdCount as u32);
    send(&mut connections.task, Cmd::UniqIdCount, &pb::UniqIdCountResp { count: 1 });
    assert!(receive_cast(&mut connections.task).data.starts_with(br#"{"cmd":6"#));
    stopping.join().expect("stop does not panic");
    let mut rest = Vec::new();
    connections.task.read_to_end(&mut rest).expect("an orderly end");
    connections.worker.read_to_end(&mut rest).expect("an orderly end");
    assert_eq!(rest, b"");
}

#[test]
fn a_lost_connection_is_made_anew() {
    let gateway = Gateway::new();
    let business = gateway.business();
    drop(gateway.accept());
    let mut connections = gateway.accept();
    send(&mut connections.worker, Cmd::Transfer, &said(b"again"));
    assert_eq!(&receive_cast(&mut connections.task).data[..], b"again");
    drop(connections);
    drop(gateway);
    business.stop();
}

#[test]
fn a_frame_that_is_no_event_ends_the_connections() {
    let gateway = Gateway::new();
    let _business = gateway.business();
    let mut connections = gateway.accept();
    send(&mut connections.worker, Cmd::UniqIdCount, &());
    let _second = gateway.accept();
    assert_eq!(connections.task.read(&mut [0]).expect("an orderly end"), 0);
}

#[test]
fn a_gateway_that_takes_no_commands_is_sent_no_more_than_a_bounded_amount() {
    const EVENTS: usize = 64 * 1024;
    let gateway = Gateway::new();
    let _business = gateway.business();
    let Connections { mut worker, mut task } = gateway.accept();
    let event = frame(Cmd::Transfer, &said(&[b'x'; 1024]));
    worker.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut written = 0;
    while written < EVENTS * event.len() {
        match worker.write(&event[written % event.len()..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(written < EVENTS * event.len() / 2, "{written} bytes were taken");
    worker.set_write_timeout(None).expect("no timeout");
    let reader = std::thread::spawn(move || {
        (0..EVENTS).for_each(|_| assert_eq!(receive_cast(&mut task).data.len(), 1024));
    });
    while written < EVENTS * event.len() {
        written += worker.write(&event[written % event.len()..]).expect("write");
    }
    reader.join().expect("every event came back");
}
