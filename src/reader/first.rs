//! First bytes that are fetched along with the lookup of a name, before its version is known.

use super::{Reader, cached};
use crate::request::Request;
use crate::s3::{ByteRange, Error, FirstBytes, ObjectVersion};
use crate::sync::{Arc, oneshot, spawn};

/// Enough for the kernel's first read of a file that is opened; takes less than a millisecond.
const LEN: u64 = 64 << 10;

/// First bytes under way. When this is dropped, they are nobody's and go nowhere.
#[derive(Debug)]
pub struct Coming(oneshot::Receiver<Result<FirstBytes, Error>>);

impl Reader {
    /// Fetches the first bytes of whatever `key` is.
    pub fn fetch_by_name(self: &Arc<Self>, key: String, request: Request) -> Coming {
        let (sender, receiver) = oneshot::channel();
        let reader = Arc::clone(self);
        spawn(async move {
            let first = reader.s3.get_first(&key, LEN, &request).await;
            // Dropped if nobody adopts them.
            let _ = sender.send(first);
        });
        Coming(receiver)
    }

    /// `first` was fetched by the name of `object`: reads of it wait for that from now on. If it is of
    /// another version, or fails before the time for an operation is over, they fetch for themselves.
    pub async fn adopt(self: &Arc<Self>, object: &ObjectVersion, first: Coming) {
        let Some(range) = ByteRange::new(0, object.meta.size.min(LEN)) else {
            return;
        };
        // Nobody waits yet: no memory is worth waiting for.
        let guess = Request::demand(self.timeout).as_prefetch();
        let pinned = self.cache.pin(cached(object), range, &guess).await;
        let Ok(Some(pinned)) = pinned else { return };
        let Some(mut fill) = pinned.claim(range).into_iter().next() else {
            return;
        };
        let etag = object.meta.etag.clone();
        spawn(async move {
            match first.0.await {
                Ok(Ok(first)) => {
                    let is_it = first.etag == etag && first.bytes.len() as u64 == range.len();
                    if is_it && fill.rest() == Some(range) {
                        fill.push(&first.bytes);
                    }
                }
                // Who waited for them has waited long enough.
                Ok(Err(error @ (Error::TimedOut | Error::Late(_)))) => return fill.fail(&error),
                _ => {}
            }
            drop((fill, pinned));
        });
    }
}
