//! The cache without a network: claims, waiting, failure, and the budget under pressure.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::{JoinHandle, spawn};

use super::*;

const MIB: u64 = BLOCK;
const SECTOR: u64 = sectors::SECTOR;

fn object(number: u64, size: u64) -> CachedObject {
    CachedObject {
        number: NonZeroU64::new(number).expect("not 0"),
        size,
    }
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).expect("not empty")
}

fn demand() -> Request {
    Request::demand(Duration::from_secs(90))
}

async fn pin(cache: &Arc<Cache>, object: CachedObject, range: ByteRange) -> Pinned {
    let pinned = cache.pin(object, range, &demand()).await;
    pinned.expect("in time").expect("demand gets memory")
}

/// Bytes that tell their place.
fn pattern(from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(|i| (i * 31 % 251) as u8).collect()
}

fn fill_whole(fill: &mut Fill, step: usize) {
    let rest = fill.rest().expect("something to fill");
    for piece in pattern(rest.start(), rest.len()).chunks(step) {
        fill.push(piece);
    }
    assert_eq!(fill.rest(), None);
}

/// What is hidden is nobody's until it is shown, and again absent if the fill ends before.
#[tokio::test]
async fn hidden_bytes_are_shown_at_once_or_not_at_all() {
    let size = 5 * SECTOR + 123;
    let cache = Cache::new(64 * MIB);
    let whole = range(0, size);
    let pinned = pin(&cache, object(1, size), whole).await;
    let mut fill = pinned.claim(whole).pop().expect("a run");
    assert!(fill.can_hide());
    fill.hide(&vec![0; usize::try_from(size).expect("small")]);
    assert!(matches!(pinned.status(whole), Status::OnTheWay));
    drop(fill);
    assert!(matches!(pinned.status(whole), Status::Absent));

    let mut fill = pinned.claim(whole).pop().expect("a run");
    fill.hide(b"wrong");
    fill.forget_hidden();
    assert_eq!(fill.rest(), Some(whole));
    for piece in pattern(0, size).chunks(1000) {
        fill.hide(piece);
        assert!(matches!(pinned.status(whole), Status::OnTheWay));
    }
    fill.show();
    assert_eq!(fill.rest(), None);
    assert_eq!(pinned.clone().slice(whole).as_bytes(), pattern(0, size));

    let two_blocks = range(0, MIB + 1);
    let pinned = pin(&cache, object(2, MIB + 1), two_blocks).await;
    assert!(!pinned.claim(two_blocks)[0].can_hide());
}

#[tokio::test]
async fn bytes_come_back_as_they_went_in_whatever_the_frames() {
    let size = 2 * MIB + 12_345;
    for (number, step) in [(1, 1000), (2, SECTOR as usize), (3, 70_001), (4, 5 << 20)] {
        let cache = Cache::new(64 * MIB);
        let whole = range(0, size);
        let pinned = pin(&cache, object(number, size), whole).await;
        let mut fills = pinned.claim(whole);
        assert_eq!(fills.len(), 1, "one run, one fetch");
        fill_whole(&mut fills[0], step);
        assert!(matches!(pinned.status(whole), Status::Present));
        assert_eq!(pinned.clone().slice(whole).as_bytes(), pattern(0, size));
        let odd = range(MIB - 3, MIB + 5);
        assert_eq!(pinned.slice(odd).as_bytes(), pattern(MIB - 3, 8));
    }
}

#[tokio::test]
async fn what_is_claimed_once_is_not_claimed_again() {
    let cache = Cache::new(64 * MIB);
    let pinned = pin(&cache, object(1, 4 * MIB), range(0, 4 * MIB)).await;
    let middle = pinned.claim(range(MIB + 1, MIB + JOINED + 1));
    let middle_end = MIB + JOINED + SECTOR;
    assert_eq!(middle[0].rest(), Some(range(MIB, middle_end)));
    let around: Vec<_> = pinned.claim(range(0, 4 * MIB));
    let runs: Vec<_> = around.iter().map(Fill::rest).collect();
    assert_eq!(
        runs,
        [Some(range(0, MIB)), Some(range(middle_end, 4 * MIB))]
    );
    assert!(pinned.claim(range(0, 4 * MIB)).is_empty());
}

#[tokio::test]
async fn a_small_gap_is_fetched_along_and_stays_as_it_is() {
    for step in [1000, SECTOR as usize, 70_001, 5 << 20] {
        let cache = Cache::new(64 * MIB);
        let whole = range(0, 2 * MIB);
        let pinned = pin(&cache, object(1, 2 * MIB), whole).await;
        let mut islands = pinned.claim(range(SECTOR, 3 * SECTOR));
        islands.extend(pinned.claim(range(MIB - SECTOR, MIB + 2 * SECTOR)));
        let mut around = pinned.claim(whole);
        assert_eq!(
            around.iter().map(Fill::rest).collect::<Vec<_>>(),
            [Some(whole)]
        );
        fill_whole(&mut around[0], step);
        assert!(matches!(pinned.status(whole), Status::OnTheWay));
        for mut island in islands {
            fill_whole(&mut island, 4096);
        }
        assert_eq!(pinned.slice(whole).as_bytes(), pattern(0, 2 * MIB));
    }
}

#[tokio::test]
async fn waiters_are_served_sector_by_sector() {
    let cache = Cache::new(64 * MIB);
    let pinned = pin(&cache, object(1, MIB), range(0, MIB)).await;
    let mut fill = pinned.claim(range(0, MIB)).pop().expect("a fill");
    let waiter = spawn({
        let pinned = pinned.clone();
        async move { pinned.settled(range(10, 20), demand().deadline).await }
    });
    fill.push(&pattern(0, SECTOR));
    let status = waiter.await.expect("no panic").expect("in time");
    assert!(matches!(status, Status::Present));
    assert!(matches!(pinned.status(range(0, MIB)), Status::OnTheWay));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_fill_leaves_absent_bytes_and_a_failed_one_an_error_for_two_seconds() {
    let cache = Cache::new(64 * MIB);
    let pinned = pin(&cache, object(1, MIB), range(0, MIB)).await;
    let mut fill = pinned.claim(range(0, MIB)).pop().expect("a fill");
    fill.push(&pattern(0, SECTOR + 1));
    drop(fill);
    assert!(matches!(pinned.status(range(0, SECTOR)), Status::Present));
    assert!(matches!(pinned.status(range(0, MIB)), Status::Absent));
    let fill = pinned.claim(range(0, MIB)).pop().expect("a fill");
    assert_eq!(fill.rest(), Some(range(SECTOR, MIB)));
    fill.fail(&Error::Changed);
    let status = pinned.status(range(0, MIB));
    assert!(matches!(status, Status::Failed(Error::Changed)));
    assert!(pinned.claim(range(0, MIB)).is_empty());
    tokio::time::advance(Duration::from_secs(3)).await;
    assert!(matches!(pinned.status(range(0, MIB)), Status::Absent));
    assert_eq!(pinned.claim(range(0, MIB)).len(), 1);
}

/// The kernel asks once more for what a read-ahead did not get.
#[tokio::test(start_paused = true)]
async fn who_comes_right_after_somebody_has_waited_in_vain_does_not_wait() {
    let cache = Cache::new(64 * MIB);
    let pinned = pin(&cache, object(1, MIB), range(0, MIB)).await;
    let mut fill = pinned.claim(range(0, MIB)).pop().expect("a fill");
    let waited = pinned.settled(range(0, 2 * SECTOR), demand().deadline);
    assert!(matches!(waited.await, Err(Error::TimedOut)));
    let status = |from, to| pinned.status(range(from * SECTOR, to * SECTOR));
    let timed_out = Status::Failed(Error::TimedOut);
    let is = |status: Status, other: &Status| format!("{status:?}") == format!("{other:?}");
    assert!(is(status(1, 2), &timed_out));
    assert!(
        is(status(2, 3), &Status::OnTheWay),
        "nobody has waited for that"
    );
    fill.push(&pattern(0, SECTOR));
    assert!(is(status(0, 1), &Status::Present));
    assert!(is(status(0, 2), &timed_out));
    tokio::time::advance(Duration::from_secs(3)).await;
    assert!(is(status(0, 2), &Status::OnTheWay));
}

#[tokio::test]
async fn the_limit_holds_and_blocks_in_use_stay_readable() {
    let cache = Cache::new(4 * MIB);
    let first = pin(&cache, object(1, MIB), range(0, MIB)).await;
    fill_whole(&mut first.claim(range(0, MIB))[0], 4096);
    for number in 2..20 {
        let pinned = pin(&cache, object(number, MIB), range(0, MIB)).await;
        fill_whole(&mut pinned.claim(range(0, MIB))[0], 4096);
        assert!(cache.used() <= cache.limit());
    }
    assert_eq!(first.slice(range(0, MIB)).as_bytes(), pattern(0, MIB));
}

#[tokio::test]
async fn blocks_of_small_objects_are_small() {
    let cache = Cache::new(4 * MIB);
    let _one = pin(&cache, object(1, 100), range(0, 100)).await;
    let _two = pin(&cache, object(2, MIB + 1), range(MIB, MIB + 1)).await;
    assert_eq!(cache.used(), 101 + 2 * BESIDE);
}

#[tokio::test]
async fn prefetch_gives_way_to_demand() {
    let cache = Cache::new(2 * MIB);
    let busy = pin(&cache, object(1, 2 * MIB), range(0, 2 * MIB)).await;
    let fills = busy.claim(range(0, 2 * MIB));
    let prefetch = demand().as_prefetch();
    let denied = cache.pin(object(2, MIB), range(0, MIB), &prefetch).await;
    assert!(denied.expect("no error").is_none());
    let waiting = spawn({
        let cache = Arc::clone(&cache);
        async move { pin(&cache, object(3, MIB), range(0, MIB)).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop((fills, busy));
    waiting.await.expect("served");
    assert!(cache.used() <= cache.limit());
}

fn is_hurried(fill: &Fill) -> bool {
    let guess = demand().as_prefetch().until_awaited(fill.awaited(), false);
    guess.is_awaited().now_or_never().is_some()
}

#[tokio::test]
async fn who_waits_hurries_what_he_waits_for_and_no_more() {
    let cache = Cache::new(64 * MIB);
    let pinned = pin(&cache, object(1, 3 * MIB), range(0, 3 * MIB)).await;
    let claim = |of: ByteRange| pinned.claim(of).pop().expect("a run");
    let near = range(MIB - 2 * SECTOR, MIB - SECTOR);
    let (begin, near_fill) = (claim(range(0, near.start())), claim(near));
    let last = claim(range(MIB - SECTOR, MIB));
    let (next, other) = (claim(range(MIB, 2 * MIB)), claim(range(2 * MIB, 3 * MIB)));
    let all = [&begin, &near_fill, &last, &next, &other];
    assert!(!all.into_iter().any(is_hurried));
    let wanted = range(near.start(), MIB + 1);
    let waiting = spawn({
        let pinned = pinned.clone();
        async move { pinned.settled(wanted, demand().deadline).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(all.map(is_hurried), [false, true, true, true, false]);
    // The wait goes on for the one, so it is for the other, too.
    drop(near_fill);
    assert!(is_hurried(&claim(near)));
    drop((last, next));
    let status = waiting.await.expect("no panic").expect("in time");
    assert!(matches!(status, Status::Absent));
    assert!(!is_hurried(&claim(near)), "nobody waits any more");
}

#[tokio::test]
async fn a_thousand_readers_over_two_blocks_each_all_come_through() {
    let cache = Cache::new(4 * MIB);
    let readers = (0..1000).map(|number| {
        let cache = Arc::clone(&cache);
        spawn(async move {
            let object = object(1 + number % 7, 2 * MIB);
            let wanted = range(MIB - 5, MIB + 5);
            loop {
                let pinned = pin(&cache, object, wanted).await;
                for mut fill in pinned.claim(wanted) {
                    tokio::task::yield_now().await;
                    fill_whole(&mut fill, 50_000);
                }
                let settled = pinned.settled(wanted, demand().deadline).await;
                if let Status::Present = settled.expect("in time") {
                    break assert_eq!(pinned.slice(wanted).as_bytes(), pattern(MIB - 5, 10));
                }
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.expect("no panic");
        assert!(cache.used() <= cache.limit());
    }
}

/// Demand for a range, as a task that waits for memory.
async fn waiting(cache: &Arc<Cache>, object: CachedObject, range: ByteRange) -> JoinHandle<Pinned> {
    let cache = Arc::clone(cache);
    let waiting = spawn(async move { pin(&cache, object, range).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    waiting
}

/// It was the next fetch to end that let them go on; without one they waited for their deadline.
#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_lets_those_behind_go_on() {
    let cache = Cache::new(2 * MIB);
    let busy = pin(&cache, object(1, 2 * MIB), range(0, MIB + 1)).await;
    let _fills = busy.claim(range(0, MIB + 1));
    let large = waiting(&cache, object(2, 2 * MIB), range(0, 2 * MIB)).await;
    let small = waiting(&cache, object(3, MIB), range(0, 1)).await;
    large.abort();
    small.await.expect("memory for it is free");
}

/// As above.
#[tokio::test(start_paused = true)]
async fn a_pin_without_a_fetch_makes_room_when_it_ends() {
    let cache = Cache::new(2 * MIB);
    let busy = pin(&cache, object(1, 2 * MIB), range(0, 2 * MIB)).await;
    let fills = busy.claim(range(0, 2 * MIB));
    let first = waiting(&cache, object(2, MIB), range(0, MIB)).await;
    let second = waiting(&cache, object(3, 2 * MIB), range(0, 2 * MIB)).await;
    drop((fills, busy));
    drop(first.await.expect("memory for it is free"));
    second.await.expect("memory for it is free");
}

/// Two who pinned one block, before and after its eviction, fetched the same bytes.
#[tokio::test(start_paused = true)]
async fn an_evicted_block_is_not_fetched_by_who_has_it_pinned() {
    let cache = Cache::new(2 * MIB);
    let whole = range(0, 2 * MIB);
    let early = pin(&cache, object(1, 2 * MIB), whole).await;
    let other = waiting(&cache, object(2, MIB), range(0, MIB)).await;
    assert!(early.claim(whole).is_empty());
    assert!(matches!(early.status(whole), Status::Absent));
    drop(early);
    let other = other.await.expect("memory for it is free");
    let late = pin(&cache, object(1, 2 * MIB), range(0, MIB)).await;
    assert_eq!(late.claim(range(0, MIB)).len(), 1);
    assert_eq!(other.claim(range(0, MIB)).len(), 1);
}

#[tokio::test]
async fn what_a_stream_left_behind_makes_room_before_the_cache_is_full() {
    let cache = Cache::new(64 * MIB);
    let stream = object(1, 60 * MIB);
    for index in 0..60 {
        let block = range(index * MIB, (index + 1) * MIB);
        let pinned = pin(&cache, stream, block).await;
        fill_whole(&mut pinned.claim(block)[0], 1 << 20);
        cache.spend(stream, block);
    }
    assert_eq!(cache.used(), 2 * MIB);
    let last = range(58 * MIB, 60 * MIB);
    let pinned = pin(&cache, stream, last).await;
    assert!(matches!(pinned.status(last), Status::Present));
}

#[tokio::test]
async fn who_comes_back_to_a_few_blocks_does_not_push_them_out() {
    let cache = Cache::new(64 * MIB);
    let few = object(1, 2 * MIB);
    let all = range(0, 2 * MIB);
    let pinned = pin(&cache, few, all).await;
    fill_whole(&mut pinned.claim(all)[0], 1 << 20);
    drop(pinned);
    for _ in 0..100 {
        cache.spend(few, all);
    }
    let pinned = pin(&cache, few, all).await;
    assert!(matches!(pinned.status(all), Status::Present));
}

#[tokio::test]
async fn prefetch_leaves_some_memory_to_demand() {
    let cache = Cache::new(16 * MIB);
    let prefetch = demand().as_prefetch();
    let mut guesses = Vec::new();
    for number in 1..=16 {
        let whole = range(0, MIB);
        let pinned = cache.pin(object(number, MIB), whole, &prefetch).await;
        guesses.extend(pinned.expect("no error").map(|pinned| pinned.claim(whole)));
    }
    assert_eq!(guesses.len(), 14);
    let demand = demand();
    let wanted = cache.pin(object(99, MIB), range(0, MIB), &demand);
    let at_once = tokio::time::timeout(Duration::ZERO, wanted).await;
    assert!(at_once.expect("at once").expect("no error").is_some());
}

/// Threads that write, read and evict blocks at the same time: what the unsafe code is to stand.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_read_the_right_bytes_while_others_write_and_evict() {
    const SIZE: u64 = 3 * MIB / 2;
    let cache = Cache::new(4 * MIB);
    let bytes: Arc<[u8]> = pattern(0, SIZE).into();
    let readers = (0..8).map(|seed| {
        let (cache, bytes) = (Arc::clone(&cache), Arc::clone(&bytes));
        spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..200 {
                let object = object(random.u64(1..=6), SIZE);
                let start = random.u64(0..SIZE);
                let wanted = range(start, random.u64(start..SIZE) + 1);
                let pinned = pin(&cache, object, wanted).await;
                for mut fill in pinned.claim(wanted) {
                    while let Some(rest) = fill.rest() {
                        let len = random.u64(1..=rest.len().min(300_000));
                        let next = rest.start() as usize;
                        fill.push(&bytes[next..next + len as usize]);
                        tokio::task::yield_now().await;
                    }
                }
                let settled = pinned.settled(wanted, demand().deadline).await;
                if let Status::Present = settled.expect("in time") {
                    let expected = &bytes[wanted.start() as usize..wanted.end() as usize];
                    assert!(pinned.slice(wanted).as_bytes() == expected);
                }
                assert!(cache.used() <= cache.limit());
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.expect("no panic");
    }
}
