//! A server behind a socket, and clients that write what they like.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use badge_server::{Listeners, Server, serve};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A server on a port of its own.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) grpc: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

pub(crate) async fn start(server: Arc<Server>) -> Running {
    let listeners = Listeners::bind(server.settings()).await.unwrap();
    let (address, grpc) = (listeners.address(), listeners.grpc_address());
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(server, listeners, async {
        let _ = stopped.await;
    }));
    Running {
        address,
        grpc,
        stop,
        task,
    }
}

/// One request over a connection of its own: status and body.
pub(crate) async fn ask(address: SocketAddr, body: &Value) -> std::io::Result<(u16, String)> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.is_empty() {
        // The port was closed before the request was read: it was never accepted.
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.unwrap_or(0), body.to_owned()))
}

impl Running {
    /// Tells the server to go.
    pub(crate) fn go(self) -> JoinHandle<()> {
        self.stop.send(()).expect("the server is there");
        self.task
    }

    /// Sends bytes over a connection of its own.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream
    }
}

/// What a server says until it closes the connection, which it has to within ten seconds.
pub(crate) async fn last_words(mut stream: TcpStream) -> String {
    let mut words = Vec::new();
    let reading = stream.read_to_end(&mut words);
    let read = timeout(Duration::from_secs(10), reading).await;
    // A connection may also be reset; what came before counts.
    let _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&words).into_owned()
}

/// The status of an answer, if there is one.
pub(crate) fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// A request of a text, as it goes over the wire.
pub(crate) fn predict(body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!("POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
}
