//! An HTTP server that answers as a test says, and notes what it was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Serves until the tests end.
pub(crate) struct Scripted {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Listens on a port of `ip`, and answers each request, of which it hands over the head, with what
    /// `answer` makes: see [`reply`].
    pub(crate) fn start(ip: &str, answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heads);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Some(head) = read_head(&stream) else {
                    continue;
                };
                noted.lock().expect("no panic").push(head.clone());
                let _ = stream.write_all(answer(&head).as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0; 1]);
            }
        });
        Self { address, heads }
    }

    /// `http://HOST:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of the requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

/// An answer with `headers`, each of which ends in a line's end.
pub(crate) fn reply(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The head of an HTTP request.
pub(crate) fn read_head(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// The value of a header.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (one, value) = line.split_once(": ")?;
        one.eq_ignore_ascii_case(name).then_some(value)
    })
}
