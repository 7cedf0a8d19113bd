//! Calls of gRPC from the definitions in `proto/` alone: messages are written and read by what those
//! files say, not by the server's own code.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use tokio::net::TcpStream;
use tower::ServiceExt;

static DEFINITIONS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = ["inference.proto", "health.proto"].map(|file| folder.join(file));
    let files = protox::compile(files, [folder]).unwrap();
    DescriptorPool::from_file_descriptor_set(files).unwrap()
});

/// A method of a service, such as `ModelInfer`.
pub(crate) fn method(name: &str) -> MethodDescriptor {
    let mut methods = DEFINITIONS
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>());
    let found = methods.find(|method| method.name() == name);
    found.unwrap_or_else(|| panic!("no method {name}"))
}

/// The path of a method.
pub(crate) fn path(name: &str) -> String {
    let method = method(name);
    format!("/{}/{name}", method.parent_service().full_name())
}

/// What came back of a call.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    /// The code of gRPC.
    pub(crate) code: u16,
    /// Why there is no message.
    pub(crate) problem: String,
    /// The message, as JSON under the names of the definition.
    pub(crate) message: Value,
    pub(crate) headers: HeaderMap,
}

impl Called {
    /// The message of an answer that must be good.
    pub(crate) fn good(self) -> Value {
        assert_eq!(self.code, 0, "{}", self.problem);
        self.message
    }

    /// Code and problem of a call that must have failed.
    pub(crate) fn bad(&self) -> (u16, &str) {
        assert_ne!(self.code, 0, "{}", self.message);
        (self.code, &self.problem)
    }
}

/// The request of a call.
pub(crate) fn request(name: &str, message: &Value, headers: &[(&str, &str)]) -> Request<Body> {
    let input = method(name).input();
    let message = DynamicMessage::deserialize(input, message).unwrap();
    framed_request(&path(name), &message.encode_to_vec(), headers)
}

/// A request of any bytes as a message.
pub(crate) fn framed_request(
    path: &str,
    message: &[u8],
    headers: &[(&str, &str)],
) -> Request<Body> {
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    let mut request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(bytes.into()).unwrap()
}

/// A method's answer as JSON, under the names of the definition.
pub(crate) fn read(name: &str, message: &[u8]) -> Value {
    let message = DynamicMessage::decode(method(name).output(), message).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(true);
    let options = options.stringify_64_bit_integers(false);
    let json = serde_json::value::Serializer;
    message.serialize_with_options(json, &options).unwrap()
}

/// What a response says.
pub(crate) async fn called<B>(name: &str, response: Response<B>) -> Called
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let (parts, mut body) = response.into_parts();
    assert_eq!(parts.status, StatusCode::OK);
    assert_eq!(parts.headers["content-type"], "application/grpc");
    let (mut bytes, mut trailers) = (Vec::new(), parts.headers.clone());
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(data) => bytes.extend(data),
            Err(frame) => trailers = frame.into_trailers().ok().unwrap(),
        }
    }
    let text = |name: &str| {
        let value = trailers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    };
    let message = bytes.get(5..).map(|message| {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        assert_eq!((bytes[0], length as usize), (0, message.len()));
        read(name, message)
    });
    Called {
        code: text("grpc-status")
            .parse()
            .expect("every answer has a code"),
        problem: text("grpc-message"),
        message: message.unwrap_or_default(),
        headers: parts.headers,
    }
}

/// Calls a method of a router.
pub(crate) async fn call(
    app: &Router,
    name: &str,
    message: &Value,
    headers: &[(&str, &str)],
) -> Called {
    let request = request(name, message, headers);
    called(name, app.clone().oneshot(request).await.unwrap()).await
}

/// A connection of HTTP/2 on which calls are made.
pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    let connected = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = connected.unwrap();
    tokio::spawn(connection);
    sender
}
