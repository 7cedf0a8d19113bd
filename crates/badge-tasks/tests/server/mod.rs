//! An HTTP server for tests: one thread, one request per connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.clone())
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(name, _)| name == "authorization");
        found.map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    sent: usize,
}

impl Reply {
    pub(crate) fn ok(body: &[u8]) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_vec(),
            sent: body.len(),
        }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::ok(b"")
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The part that a `Range: bytes=N-` header asks for.
    pub(crate) fn for_range(mut self, request: &Request) -> Self {
        let range = request.header("range");
        let from: Option<usize> =
            range.and_then(|range| range["bytes=".len()..].trim_end_matches('-').parse().ok());
        if let Some(from) = from {
            self.body.drain(..from);
            self.sent = self.body.len();
            self.status = 206;
        }
        self
    }

    /// Announces all but closes the connection after this many bytes.
    pub(crate) fn cut_after(mut self, bytes: usize) -> Self {
        self.sent = self.sent.min(bytes);
        self
    }
}

/// A running server, stopped when dropped.
pub(crate) struct Server {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (seen, stop) = (Arc::clone(&requests), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                if let Some(request) = read_request(&stream) {
                    let reply = answer(&request);
                    let head = request.method == "HEAD";
                    seen.lock().unwrap().push(request);
                    send(stream, &reply, head);
                }
            }
        });
        Self {
            url,
            requests,
            stopped,
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some(Request {
        method,
        path,
        headers,
    })
}

fn send(mut stream: TcpStream, reply: &Reply, head: bool) {
    let (status, length) = (reply.status, reply.body.len());
    let first =
        format!("HTTP/1.1 {status} Reply\r\nConnection: close\r\nContent-Length: {length}\r\n");
    let headers = reply
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let lines: Vec<String> = [first].into_iter().chain(headers).collect();
    let text = format!("{}\r\n", lines.concat());
    // The client may hang up first; what it makes of that is what the tests look at.
    let _ = stream.write_all(text.as_bytes());
    if !head {
        let _ = stream.write_all(&reply.body[..reply.sent]);
    }
}
