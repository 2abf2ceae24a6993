//! Objects that come whole.
//!
//! That is due by the time for which readers have waited, beside what it takes over a fast network. Where the link turns
//! out to be slow, the rest waits until it is due by what it takes over that: what readers ask for comes sooner meanwhile.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Reader, fetch_part, parts};
use crate::s3::{ByteRange, ObjectVersion};
use crate::sync::{Arc, Mutex, lock, timeout_at, watch};

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

/// The link is timed by so many bytes ...
const TIMED_BY: u64 = FIRST as u64 * PART;
/// ... and slow with fewer in a second.
const SLOW: u64 = 100_000_000;
/// For so long: it may have been slow for a while only.
const BELIEVED: Duration = Duration::from_secs(60);

/// Nobody waits any more who has not for so long: the room for the rest is for others.
const PAUSE: Duration = Duration::from_secs(10);

/// What random reads wait for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    /// Where the latest of them is.
    pub(super) at: u64,
    /// How long they have waited, all together.
    pub(super) time: Duration,
}

/// How fast the link was, in bytes a second, when an object came whole last, and when that was.
#[derive(Debug, Default)]
pub(super) struct Link(Mutex<Option<(u64, Instant)>>);

impl Link {
    fn note(&self, bytes: u64, took: Duration, now: Instant) {
        let rate = u128::from(bytes) * 1_000_000 / took.as_micros().max(1);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        *lock(&self.0) = Some((rate.max(1), now));
    }

    /// Whether so many bytes are due to whoever has waited for so long: for half of the time that they take, if the link
    /// is slow.
    fn are_due(&self, bytes: u64, waited: Duration, now: Instant) -> bool {
        let link = *lock(&self.0);
        let slow = link.filter(|(rate, since)| *rate < SLOW && now < *since + BELIEVED);
        slow.is_none_or(|(rate, _)| {
            waited >= Duration::from_micros(bytes.saturating_mul(500_000) / rate)
        })
    }
}

/// Fetches all that is absent of an object, at each time what is nearest to where its readers wait, until
/// something fails.
pub(super) async fn fetch(
    reader: Arc<Reader>,
    object: Arc<ObjectVersion>,
    mut waits: watch::Receiver<Waits>,
) {
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
    let (mut since, mut came) = (Instant::now(), 0);
    loop {
        let Waits { at, time } = *waits.borrow_and_update();
        let is_due = reader
            .link
            .are_due(missing.len() as u64 * PART, time, Instant::now());
        while is_due
            && under_way.len() < at_once
            && let Some(part) = take_nearest(&mut missing, at)
        {
            under_way.push(timed(part));
        }
        if under_way.is_empty() && !missing.is_empty() {
            let more = timeout_at(Instant::now() + PAUSE, waits.changed());
            if !matches!(more.await, Ok(Ok(()))) {
                return;
            }
            (since, came) = (Instant::now(), 0);
            continue;
        }
        let Some((fetched, took)) = under_way.next().await else {
            return;
        };
        came += fetched.as_ref().unwrap_or(&0);
        if came >= TIMED_BY {
            let now = Instant::now();
            reader.link.note(came, now - since, now);
            (since, came) = (now, 0);
        }
        at_once = match fetched {
            // It was there.
            Ok(0) => at_once,
            Ok(_) if took <= GOOD_TIME => most.min(at_once + 1),
            Ok(_) if took <= TOO_LATE => at_once,
            Ok(_) => at_once.div_ceil(2),
            Err(_) => {
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
    fn over_a_slow_link_an_object_is_due_later() {
        let (link, now) = (Link::default(), Instant::now());
        let is_due_at = |millis, now| link.are_due(300 << 20, Duration::from_millis(millis), now);
        let is_due = |millis| is_due_at(millis, now);
        let note = |millis| link.note(32 << 20, Duration::from_millis(millis), now);
        assert!(is_due(0), "how fast it is remains to be seen");
        note(100);
        assert!(is_due(0));
        note(500);
        assert!(!is_due(2300));
        assert!(is_due(2350));
        assert!(is_due_at(0, now + BELIEVED), "it may be faster by now");
    }

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
