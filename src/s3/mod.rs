//! S3 as the file system needs it: list, head and ranged get, with typed errors, deadlines and the
//! replay of requests whose credentials expired. No SDK type is seen above this module.
//!
//! Requests are made and signed with parts of the SDK, without its layers (`send`), and go over connections
//! of our own (`http`, `connect`). Each is sent once, and once more over another connection where nearly all
//! others were answered sooner (`hedge`). All trying again is in `retry`: transient failures with backoff
//! for a minute, expired credentials once they are renewed. A body that breaks, or does not come on
//! (`pace`), is resumed at the byte reached (`body`), and that of a small object compared with its checksum
//! (`checksum`). A request waits for credentials first and for a connection then, so that those who wait for
//! credentials do not keep connections from others.

mod body;
mod checksum;
mod client;
mod connect;
mod error;
mod get;
mod hedge;
mod http;
mod list;
mod list_xml;
mod pace;
#[cfg(any(test, fuzzing))]
pub(crate) mod parsers;
#[cfg(any(test, fuzzing))]
pub(crate) mod pretended;
mod retry;
mod send;
mod types;

pub use body::{Body, Piece};
pub use client::{Compared, S3, Settings};
pub use error::Error;
pub use get::FirstBytes;
pub use list::{From as ListFrom, ListQuery, Listed, Page};
pub use types::{ByteRange, ETag, LONGEST_KEY, ObjectMeta, ObjectVersion, Storage};
