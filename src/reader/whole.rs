//! Objects that come whole.

use futures_util::{StreamExt as _, stream};

use super::{Reader, fetch_part, parts};
use crate::s3::{ByteRange, ObjectVersion};
use crate::sync::{Arc, AtomicU64, Ordering};

/// In short parts: readers wait for what is under way ...
const PART: u64 = 3 << 20;
/// ... and in so many at once: the sooner much of it is there, the fewer reads have to wait at all.
const AT_ONCE: usize = 32;

/// Fetches all that is absent of an object, at each time what is nearest to the position `at`.
pub(super) async fn fetch(reader: Arc<Reader>, object: Arc<ObjectVersion>, at: Arc<AtomicU64>) {
    let all = ByteRange::new(0, object.meta.size).into_iter();
    let mut missing: Vec<_> = all.flat_map(|all| parts(all, PART)).collect();
    let nearest = || take_nearest(&mut missing, at.load(Ordering::Relaxed));
    let fetch = |part| fetch_part(&reader, &object, part);
    let parts = stream::iter(std::iter::from_fn(nearest));
    parts.for_each_concurrent(AT_ONCE, fetch).await;
}

/// Takes the part that begins nearest to a position.
fn take_nearest(parts: &mut Vec<ByteRange>, position: u64) -> Option<ByteRange> {
    let distance = |part: &ByteRange| part.start().abs_diff(position);
    let nearest = (0..parts.len()).min_by_key(|nth| distance(&parts[*nth]))?;
    Some(parts.remove(nearest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_an_object_from_where_it_is_read() {
        let all = ByteRange::new(0, 9 << 20).expect("not empty");
        let mut missing: Vec<_> = parts(all, 2 << 20).collect();
        let positions = [5, 5, 0, 0, 0, 0].map(|mib| mib << 20);
        let taken =
            positions.map(|at| take_nearest(&mut missing, at).map(|part| part.start() >> 20));
        assert_eq!(taken, [Some(4), Some(6), Some(0), Some(2), Some(8), None]);
    }
}
