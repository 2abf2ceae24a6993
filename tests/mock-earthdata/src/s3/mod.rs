//! S3, as far as the credentials of `/s3credentials` allow it: ListObjectsV2, HeadObject, GetObject.
//!
//! `gate` takes a request first: it counts it, refuses what is not one of the three operations, and judges the session
//! token, because S3 does all that before it looks at a signature. `s3s` then checks the signature (and the clock) and
//! decodes the request, and `objects` answers it from the store. `body` counts the answer and `pace` slows it down.
//!
//! `checksums` says what S3 has as the checksum of an object.
//!
//! `lean` does the same without the checks and without `s3s`, on the bare socket, for benchmarks; its listings are those of
//! `lists`, which also writes the broken ones (and `hostile` the entries of the worst) for both. A fault is drawn from the
//! script once the request is admitted, and handed to where it happens: errors to `refused`, other objects to `objects`,
//! listings to `lists`, and the rest to the wire below http.

mod body;
mod checksums;
mod gate;
mod hostile;
mod lean;
mod lists;
mod objects;
mod pace;
mod refused;
mod request;
mod urlencode;

pub(crate) use gate::Gate;
pub(crate) use lean::Lean;
pub(crate) use pace::SharedLink;
