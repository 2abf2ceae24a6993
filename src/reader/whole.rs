//! Objects that come whole.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Reader, fetch_part, parts};
use crate::s3::{ByteRange, ObjectVersion};
use crate::sync::{Arc, AtomicU64, Ordering};

/// In short parts: readers wait for what is under way ...
const PART: u64 = 1 << 20;
/// ... and in so many at once: the sooner much of it is there, the fewer reads have to wait at all.
const MOST: usize = 48;
/// At first; one more for each part that comes in good time, half of it for one that comes too late.
const FIRST: usize = 32;
/// Where each connection brings 90 MB/s, it takes 40 ms.
const GOOD_TIME: Duration = Duration::from_millis(100);
/// Readers would have their own bytes much sooner.
const TOO_LATE: Duration = Duration::from_millis(200);

/// Fetches all that is absent of an object, at each time what is nearest to the position `at`, until
/// something fails.
pub(super) async fn fetch(reader: Arc<Reader>, object: Arc<ObjectVersion>, at: Arc<AtomicU64>) {
    let all = ByteRange::new(0, object.meta.size).into_iter();
    let mut missing: Vec<_> = all.flat_map(|all| parts(all, PART)).collect();
    let most = reader.s3.most_ahead().min(MOST);
    let mut at_once = most.min(FIRST);
    let timed = async |part| {
        let _counted = Arc::clone(&reader.fetches);
        let begin = Instant::now();
        let fetched = fetch_part(&reader, &object, part).await;
        (fetched, begin.elapsed())
    };
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < at_once
            && let Some(part) = take_nearest(&mut missing, at.load(Ordering::Relaxed))
        {
            under_way.push(timed(part));
        }
        at_once = match under_way.next().await {
            None => return,
            // It was there.
            Some((Ok(0), _)) => at_once,
            Some((Ok(_), took)) if took <= GOOD_TIME => most.min(at_once + 1),
            Some((Ok(_), took)) if took <= TOO_LATE => at_once,
            Some((Ok(_), _)) => at_once.div_ceil(2),
            Some((Err(_), _)) => {
                missing.clear();
                at_once
            }
        };
    }
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
