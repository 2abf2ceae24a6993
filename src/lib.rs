//! s3credmount mounts a NASA Earthdata S3 bucket read-only through FUSE, with temporary credentials
//! that it fetches from the bucket's `/s3credentials` endpoint and keeps fresh.
//!
//! # The parts
//!
//! Imports point down only; `tests/main/layers.rs` keeps it so.
//!
//! ```text
//! main         run here or in the background (`background`), exit status; `log`, `process`
//! cli          what the user typed, made into plain configuration
//! tools        credentials for other programs, the table of buckets, a check of all
//! mount        builds the stack bottom-up, runs the FUSE session, signals, unmount
//! fuse         decode, call fs, reply; the only place that knows errno
//! fs           lookup, readdir, open, read as plain async functions
//! namespace    names -> object versions     |  reader   object version, offset, length -> bytes
//!   (key rules, listing, TTLs, inodes)      |    (cursors, windows, fetch planning)
//!                                           |  cache    blocks in memory, one budget
//! s3           list, head, get_range: typed errors, deadlines, expiry replay
//! credentials  the manager: current(), invalidate(credentials); shared by the processes of a host
//! earthdata    the HTTP protocol: endpoint, Earthdata Login, netrc, bucket table
//! instance     the AWS region that this machine is in
//! network      certificates, proxies and names, for both HTTP stacks
//!
//! memory       the memory that this process may use; request: who asks, until when; sync: what the model
//!              checker replaces; parsers: all that reads foreign bytes, for the fuzzer
//! ```
//!
//! # Life of a read
//!
//! [`fuse::Adapter`] polls the future of [`fs::Fs::read`] once on the session thread. The handle's
//! [`reader::OpenObject`] notes the access with a cursor, which plans what to fetch now and what
//! ahead; the [`cache::Cache`] says what of it is there, on its way, or to be fetched, and each absent
//! run becomes one `GET` with `If-Match` ([`s3::S3::get_range`]), signed with what
//! [`credentials::Manager`] holds. If all bytes were there, the reply is already sent; if not, the
//! future goes on as a task of the runtime, and its reply leaves as soon as the last byte that it
//! needs has come.

pub mod background;
pub mod cache;
pub mod cli;
pub mod credentials;
pub mod earthdata;
pub mod fs;
pub mod fuse;
pub mod instance;
pub mod log;
mod memory;
pub mod mount;
pub mod namespace;
pub mod network;
#[cfg(any(test, fuzzing))]
pub mod parsers;
pub mod process;
pub mod reader;
pub mod request;
pub mod s3;
mod sync;
pub mod tools;
