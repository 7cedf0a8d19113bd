//! Calls of one message and answers of one, as gRPC frames them over HTTP/2.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost::{DecodeError, Message};

use crate::http::body;
use crate::http::failure::{Failure, Form};
use crate::http::observation::Arrival;
use crate::refusal::Refusal;
use crate::server::Server;

const CONTENT_TYPE: &str = "application/grpc";
const CODE: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// When a client that tries again by itself may do so.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Whether a message is compressed, and its length in four bytes.
const PREFIX: usize = 5;

/// Fields of one message, not counting those within them. A tensor that says nothing takes two bytes
/// on the wire and some hundred in memory.
const FIELDS_MAX: usize = 1024;

/// The codes of gRPC that are in use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Ok = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Empty(_) | Refusal::Validation(_) | Refusal::Tokenizer(_) => {
                Self::InvalidArgument
            }
            Refusal::PayloadTooLarge { .. } | Refusal::Overloaded { .. } => Self::ResourceExhausted,
            Refusal::SlowBody(_) | Refusal::Expired => Self::DeadlineExceeded,
            Refusal::Unauthorized => Self::Unauthenticated,
            Refusal::NotReady(_) => Self::Unavailable,
            Refusal::UnknownModel { .. } | Refusal::UnknownService { .. } => Self::NotFound,
            Refusal::Encoding(_)
            | Refusal::UnknownRoute
            | Refusal::UnknownMethod
            | Refusal::WrongMethod => Self::Unimplemented,
            Refusal::Unsupported(_) => Self::FailedPrecondition,
            Refusal::Backend(_) => Self::Internal,
        }
    }

    fn header(self) -> HeaderValue {
        HeaderValue::from(self as u16)
    }
}

/// A call: its one message, and its metadata.
#[derive(Debug)]
pub(super) struct Call<M> {
    pub(super) message: M,
    pub(super) headers: HeaderMap,
    pub(super) arrival: Arrival,
}

impl<M: Message + Default> FromRequest<Arc<Server>> for Call<M> {
    type Rejection = Failure;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Failure> {
        let form = request.headers().get(header::CONTENT_TYPE);
        if !form.is_some_and(is_grpc) {
            // Whoever says so is no client of gRPC, and looks at the status.
            let refusal = Refusal::Encoding("gRPC's content type is application/grpc");
            return Err(Failure::new(refusal, Form::Native));
        }
        let arrival = Arrival::of(&request);
        let headers = request.headers().clone();
        let read = body::read(request, &server.settings.limits).await;
        let message = read.and_then(|bytes| unframed(&bytes));
        Ok(Self {
            message: message.map_err(Form::Grpc.of())?,
            headers,
            arrival,
        })
    }
}

/// `application/grpc`, also with what follows on it, such as `+proto`.
fn is_grpc(form: &HeaderValue) -> bool {
    let rest = form.as_bytes().strip_prefix(CONTENT_TYPE.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+proto") || rest[0] == b';')
}

/// The one message of a body.
fn unframed<M: Message + Default>(bytes: &[u8]) -> Result<M, Refusal> {
    let wrong = |problem: String| Refusal::Validation(format!("the body is no message: {problem}"));
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        let length = bytes.len();
        return Err(wrong(format!("it has {length} bytes")));
    };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(Refusal::Encoding("messages come uncompressed here"));
    }
    let (length, found) = (u32::from_be_bytes(length) as usize, rest.len());
    if length != found {
        return Err(wrong(format!(
            "it announces {length} bytes, and {found} came"
        )));
    }
    let count = fields(rest).map_err(|error| wrong(error.to_string()))?;
    if count > FIELDS_MAX {
        return Err(wrong(format!("it has more than {FIELDS_MAX} fields")));
    }
    M::decode(rest).map_err(|error| wrong(error.to_string()))
}

/// How many fields a message has, at most one more than it may.
fn fields(mut bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut count = 0;
    while !bytes.is_empty() && count <= FIELDS_MAX {
        let (tag, form) = decode_key(&mut bytes)?;
        skip_field(form, tag, &mut bytes, DecodeContext::default())?;
        count += 1;
    }
    Ok(count)
}

/// An answer: its one message, and its metadata.
#[derive(Debug)]
pub(super) struct Answer<M> {
    pub(super) message: M,
    pub(super) headers: HeaderMap,
}

impl<M> Answer<M> {
    pub(super) fn of(message: M) -> Self {
        Self {
            message,
            headers: HeaderMap::new(),
        }
    }
}

impl<M: Message> IntoResponse for Answer<M> {
    fn into_response(self) -> Response {
        let length = self.message.encoded_len();
        let mut bytes = Vec::with_capacity(PREFIX + length);
        bytes.push(0);
        bytes.extend((length as u32).to_be_bytes());
        let written = self.message.encode(&mut bytes);
        written.expect("a vector has room for any message");
        let body = Body::new(Framed {
            message: Some(bytes.into()),
            trailers: Some(HeaderMap::from_iter([(CODE, Code::Ok.header())])),
        });
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], self.headers, body).into_response()
    }
}

/// The code of an answer in gRPC's form.
pub(in crate::http) fn code(headers: &HeaderMap) -> Option<i64> {
    let code = headers
        .get(CODE)
        .map(|code| code.to_str().ok()?.parse().ok());
    // Behind a message it comes last, and is always the same.
    let is_message = || headers.get(header::CONTENT_TYPE).is_some_and(is_grpc);
    code.unwrap_or_else(|| is_message().then_some(Code::Ok as i64))
}

/// The answer that says why there is none: all of it in its headers.
pub(in crate::http) fn refused(refusal: &Refusal) -> Response {
    let message = HeaderValue::from_str(&percent_encoded(&refusal.to_string()));
    let message = message.expect("what is no visible ASCII has been encoded");
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE)),
        (CODE, Code::of(refusal).header()),
        (MESSAGE, message),
    ];
    let mut response = (HeaderMap::from_iter(fields), Body::empty()).into_response();
    if let Some(wait) = refusal.retry_after() {
        let ms = HeaderValue::from(wait.as_millis() as u64);
        response.headers_mut().insert(PUSHBACK, ms);
    }
    if matches!(refusal, Refusal::Encoding(_)) {
        let name = HeaderName::from_static("grpc-accept-encoding");
        let accepted = HeaderValue::from_static("identity");
        response.headers_mut().insert(name, accepted);
    }
    response
}

/// A text as `grpc-message` holds it.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(byte.into());
        } else {
            write!(encoded, "%{byte:02X}").expect("a string has room");
        }
    }
    encoded
}

/// A body of one message with the code behind it.
#[derive(Debug)]
struct Framed {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl hyper::body::Body for Framed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.message.take() {
            Some(message) => Some(Frame::data(message)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::super::messages::{ModelInferRequest, ModelReadyRequest, ServerLiveRequest};
    use super::*;

    #[test]
    fn a_body_is_one_message_of_the_length_that_it_announces() {
        let read = unframed::<ModelReadyRequest>(b"\0\0\0\0\x03\x0a\x01a").unwrap();
        assert_eq!(read.name, "a");
        assert!(unframed::<ServerLiveRequest>(&[0; 5]).is_ok());
        for (bytes, problem) in [
            (&b""[..], "0 bytes"),
            (b"\0\0\0", "3 bytes"),
            (b"\0\0\0\0\x03\x0a\x01", "announces 3 bytes, and 2 came"),
            (b"\0\0\0\0\0\0\0\0\0\0", "announces 0 bytes, and 5 came"),
            (b"\0\xff\xff\xff\xff\x0a", "announces 4294967295"),
            (b"\x01\0\0\0\0", "uncompressed"),
            (b"\0\0\0\0\x03\x0a\x05a", "no message"),
            (b"\0\0\0\0\x03\x0a\x01\xff", "no message"),
        ] {
            let message = unframed::<ModelReadyRequest>(bytes).unwrap_err();
            assert!(message.to_string().contains(problem), "{message}");
        }
    }

    #[test]
    fn messages_of_very_many_fields_are_refused_before_they_take_memory() {
        let message = |count: usize| {
            let mut bytes = vec![0];
            bytes.extend((2 * count as u32).to_be_bytes());
            bytes.extend([0x2a, 0].repeat(count));
            unframed::<ModelInferRequest>(&bytes)
        };
        assert_eq!(message(FIELDS_MAX).unwrap().inputs.len(), FIELDS_MAX);
        let refused = message(FIELDS_MAX + 1).unwrap_err().to_string();
        assert!(refused.contains("1024 fields"), "{refused}");
    }

    #[test]
    fn every_refusal_has_its_code() {
        let wait = std::time::Duration::from_secs(3);
        let text = String::new;
        for (refusal, code) in [
            (Refusal::Empty("inputs"), 3),
            (Refusal::Validation(text()), 3),
            (Refusal::Tokenizer(text()), 3),
            (Refusal::Expired, 4),
            (Refusal::SlowBody(wait), 4),
            (
                Refusal::UnknownModel {
                    model: text(),
                    known: text(),
                },
                5,
            ),
            (
                Refusal::UnknownService {
                    service: text(),
                    known: "",
                },
                5,
            ),
            (Refusal::Overloaded { retry_after: wait }, 8),
            (Refusal::PayloadTooLarge { bytes_max: 1 }, 8),
            (Refusal::Unsupported(text()), 9),
            (Refusal::Encoding("gzip"), 12),
            (Refusal::UnknownMethod, 12),
            (Refusal::UnknownRoute, 12),
            (Refusal::WrongMethod, 12),
            (Refusal::Backend(text()), 13),
            (Refusal::NotReady("draining"), 14),
            (Refusal::Unauthorized, 16),
        ] {
            assert_eq!(Code::of(&refusal) as u16, code, "{refusal:?}");
            let response = refused(&refusal);
            assert_eq!(response.headers()[CODE], code.to_string());
        }
        let late = refused(&Refusal::Overloaded { retry_after: wait });
        assert_eq!(late.headers()[PUSHBACK], "3000");
    }

    #[test]
    fn messages_are_written_in_visible_ascii() {
        assert_eq!(percent_encoded("a `b`: 50 %\n"), "a `b`: 50 %25%0A");
        assert_eq!(percent_encoded("ß"), "%C3%9F");
    }

    #[test]
    fn content_types_of_grpc_are_known() {
        for (form, known) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc+json", false),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&HeaderValue::from_static(form)), known, "{form}");
        }
    }
}
