//! NASA Earthdata on loopback: all of the outside world that s3credmount talks to.
//!
//! Four listeners, http or https, each on a loopback address of its own, so that "the same host" means what it means in
//! the field:
//!
//! | address   | what it stands for                                          | module             |
//! |-----------|------------------------------------------------------------|------------------|
//! | 127.0.0.1 | Earthdata Login, CMR, and the mock's own `/_mock/` control paths | `login`, `cmr`, `control` |
//! | 127.0.0.2 | a distribution host of the Thin Egress App (TEA)           | `distribution`   |
//! | 127.0.0.3 | a distribution host of Cumulus                             | `distribution`   |
//! | 127.0.0.4 | S3, path-style                                             | `s3`             |
//!
//! # Life of a request
//!
//! [`World::start`] binds the listeners and gives them to a thread with a tokio runtime of its own, so that blocking
//! tests can use the world as well as async ones. `server` accepts (`tls` first, if there is TLS) and speaks http; a
//! handler for each address answers. An S3 request is announced to the [`Counters`], then `s3::gate` looks at its
//! credentials in the ledger (`credentials`: what was issued, to whom, until when), then `s3s` checks the signature and
//! calls `s3::objects`, which answers from the `store`; the answer waits for the delays of [`Shape`], and its body is paced
//! and counted on the way out. Dropping the [`World`] ends the thread, closes every connection and frees the ports.
//!
//! # What goes wrong
//!
//! A [`FaultRule`] says which requests a [`Fault`] happens to; `script` counts its matches, and hands a hit to whoever makes
//! the answer: `s3` for errors, objects and listings, `wire`, a stream between http and the socket, for resets, bodies too
//! short or too long, stalls and flipped bytes. [`World::refuse_connections`] and [`World::kill_connections`] are for all
//! at once, [`World::set_clock_offset`] is for the clocks, [`Answer`] for `/s3credentials`.
//!
//! # Lean mode
//!
//! With [`Settings::lean`] S3 is served by `s3::lean`: no `s3s` and no hyper, nothing checked, bodies straight from the
//! table of [`fill`] to the socket; the same store, script, wire, counters and shape.
//!
//! Nothing here is a general server: the client under test is trusted not to attack, and only to err.

mod clock;
mod cmr;
mod content;
mod control;
mod credentials;
mod distribution;
mod fault_line;
mod faults;
mod login;
mod meter;
mod reply;
mod s3;
mod script;
mod server;
mod settings;
mod state;
mod store;
mod synthetic;
mod tls;
mod wire;
mod world;

pub use cmr::{Cmr, CmrTrouble};
pub use content::{Content, from_directory};
pub use fault_line::ParseFaultError;
pub use faults::{Fault, FaultRule, Ops, When};
pub use meter::{Counters, Op, RequestRecord};
pub use script::RuleCount;
pub use settings::{
    Access, Answer, Bucket, Checksums, DEFAULT_PASSWORD, DEFAULT_TOKEN, DEFAULT_USER, Host,
    ListAccess, Ports, REVOKED_TOKEN, Settings, Shape, User,
};
pub use synthetic::{ParseSyntheticError, Synthetic, fill};
pub use tls::S3_NAME;
pub use world::World;
