//! An HTTP upstream: every request goes to the test, or to a function that answers at once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::common::PATIENCE;

/// One request of the gateway.
pub struct Call {
    /// The request target.
    pub method: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    answer: Sender<Vec<u8>>,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| &*header.1)
    }

    /// Answers 200 with this body.
    pub fn answer(self, body: &[u8]) {
        // The gateway may have given up waiting.
        let _ = self.answer.send(response(body));
    }
}

/// An upstream on a free port; it ends with the test process.
pub struct Upstream {
    pub url: String,
    calls: Receiver<Call>,
}

impl Upstream {
    /// Requests wait for the test.
    pub fn start() -> Upstream {
        let (sender, calls) = channel();
        let url = listen(move |call: Call| drop(sender.send(call)));
        Upstream { url, calls }
    }

    /// The next request.
    pub fn call(&self) -> Call {
        self.calls.recv_timeout(PATIENCE).expect("no request came")
    }

    /// Whether a request waits right now.
    pub fn waits(&self) -> Option<Call> {
        self.calls.try_recv().ok()
    }
}

/// An upstream that answers every request with what `reply` makes of its body; returns its URL.
pub fn answering(reply: impl Fn(&Call) -> Vec<u8> + Send + Sync + 'static) -> String {
    listen(move |call| {
        let body = reply(&call);
        call.answer(&body);
    })
}

fn listen(handle: impl Fn(Call) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handle = handle.clone();
            std::thread::spawn(move || serve(stream, &*handle));
        }
    });
    url
}

/// The requests of one connection, each after the one before is answered.
fn serve(stream: TcpStream, handle: &dyn Fn(Call)) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (answer, answered) = channel();
        handle(read(&mut reader, answer)?);
        writer.write_all(&answered.recv().ok()?).ok()?;
    }
}

fn read(reader: &mut BufReader<TcpStream>, answer: Sender<Vec<u8>>) -> Option<Call> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let method = lines.first()?.split(' ').nth(1)?.to_owned();
    let header =
        |line: &String| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()));
    let headers: Vec<(String, String)> = lines[1..].iter().filter_map(header).collect();
    let length = headers.iter().find(|header| header.0 == "content-length");
    let length = length.and_then(|header| header.1.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Call { method, headers, body, answer })
}

fn response(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
