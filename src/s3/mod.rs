//! S3 as the file system needs it: list, head and ranged get, with typed errors, deadlines and the
//! replay of requests whose credentials expired. No SDK type is seen above this module.
//!
//! The SDK lists and asks for attributes; bytes are asked for without its layers (`get`), over the same
//! connections. Each request is sent once. All trying again is in `retry`: transient failures with backoff
//! for a minute, expired credentials once they are renewed. A body that breaks is resumed at the byte
//! reached (`body`). A request waits for credentials first and for a connection then, so that those
//! who wait for credentials do not keep connections from others.

mod body;
mod client;
mod error;
mod first;
mod get;
mod hedge;
mod http;
mod list;
mod retry;
mod types;

pub use body::Body;
pub use client::{S3, Settings};
pub use error::Error;
pub use first::FirstBytes;
pub use list::{From as ListFrom, ListQuery, Listed, Page};
pub use types::{ByteRange, ETag, ObjectMeta, ObjectVersion, Storage};
