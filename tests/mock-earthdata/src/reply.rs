//! Answers of the hosts that are not S3, and the body type of all.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

/// An error of a body, which cuts the connection.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What the server sends.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// An answer as the server takes it.
pub(crate) type Reply = Response<Body>;

/// All of a body at once.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A page for people.
pub(crate) fn html(status: StatusCode, title: &str, text: &str) -> Reply {
    let page = format!(
        "<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p></body></html>\n"
    );
    with_type(status, "text/html; charset=utf-8", page)
}

/// JSON, labelled as such.
pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    let text = serde_json::to_string(value)
        .expect("the mock's own values have string keys and finite numbers");
    with_type(status, "application/json", text)
}

/// A body with its type.
pub(crate) fn with_type(status: StatusCode, kind: &'static str, text: String) -> Reply {
    let mut reply = Response::new(whole(text));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// A redirect. A location that no header can hold is a 400: it came from the client.
pub(crate) fn redirect(status: StatusCode, location: &str) -> Reply {
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut reply = Response::new(whole(""));
            *reply.status_mut() = status;
            reply.headers_mut().insert(header::LOCATION, location);
            reply
        }
        Err(_) => html(StatusCode::BAD_REQUEST, "Bad Request", "No such place."),
    }
}
