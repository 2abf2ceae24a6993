//! The cache under all kinds of schedules (`scripts/model`): never above the limit, no byte fetched
//! twice at a time, no wake-up lost, no deadlock, and all memory to be had again in the end.

use std::pin::pin;
use std::sync::{LazyLock, Mutex as StdMutex};

use futures_util::future::select;
use shuttle::future::yield_now;
use shuttle::rand::{Rng, thread_rng};
use shuttle_tokio::task::JoinHandle;

use super::*;
use crate::sync::{Semaphore, explore, spawn};

/// Room for two blocks, the least.
const LIMIT: u64 = 2 * BLOCK;
/// Further apart than what is fetched along.
const UNIT: u64 = 2 * JOINED;

/// Bytes that tell their place.
static PATTERN: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..2 * BLOCK).map(|i| (i * 31 % 251) as u8).collect());

fn pattern(range: ByteRange) -> &'static [u8] {
    &PATTERN[range.start() as usize..range.end() as usize]
}

fn units(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start * UNIT, end * UNIT).expect("not empty")
}

/// All units of a block.
const ALL: u64 = BLOCK / UNIT;

/// An object of two blocks.
fn object(number: u64) -> CachedObject {
    CachedObject {
        number: NonZeroU64::new(number).expect("not 0"),
        size: 2 * BLOCK,
    }
}

struct World {
    cache: Arc<Cache>,
    /// What is fetched at this moment, of which object.
    fetching: StdMutex<Vec<(CachedObject, ByteRange)>>,
    request: Request,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            cache: Cache::new(LIMIT),
            fetching: StdMutex::default(),
            request: Request::demand(std::time::Duration::from_secs(90)),
        })
    }

    fn check_limit(&self) {
        assert!(self.cache.used() <= LIMIT);
    }

    /// Fetches as the reader does, to the end or to where S3 fails or the fetch is given up.
    async fn fetch(&self, object: CachedObject, mut fill: Fill) {
        let range = fill.rest().expect("something to fetch");
        let mut fetching = Fetching::begin(self, object, range);
        while let Some(rest) = fill.rest() {
            yield_now().await;
            match thread_rng().gen_range(0..12) {
                0 => {
                    fetching.goes_on(None);
                    return fill.fail(&Error::Changed);
                }
                1 => return,
                _ => {}
            }
            let len = rest.len().min(UNIT);
            let next = ByteRange::new(rest.start(), rest.start() + len).expect("not empty");
            // What has come may be evicted, and fetched anew, from now on.
            fetching.goes_on(ByteRange::new(next.end(), rest.end()));
            fill.push(pattern(next));
        }
    }

    /// Reads as the reader does, which fetches more than it needs if there is memory for it.
    async fn read(self: &Arc<Self>, object: CachedObject, wanted: ByteRange) {
        loop {
            let pinned = self.cache.pin(object, wanted, &self.request).await;
            let pinned = pinned.expect("no deadline").expect("demand gets memory");
            self.check_limit();
            let guess = self.request.as_prefetch();
            let whole = units(0, 2 * ALL);
            let mut fills = match self.cache.pin(object, whole, &guess).await {
                Ok(Some(wider)) => wider.claim(whole),
                _ => pinned.claim(wanted),
            };
            fills.retain(|fill| fill.touches(wanted));
            for fill in fills {
                let world = Arc::clone(self);
                spawn(async move { world.fetch(object, fill).await });
            }
            let settled = pinned.settled(wanted, self.request.deadline).await;
            match settled.expect("no deadline") {
                Status::Present => {
                    let slice = pinned.slice(wanted);
                    yield_now().await;
                    assert!(slice.as_bytes() == pattern(wanted));
                    self.cache.spend(object, wanted);
                    return;
                }
                Status::Failed(_) => return,
                Status::Absent => {}
                Status::OnTheWay => panic!("settled, and on its way"),
            }
        }
    }

    /// Nothing is held up by anybody: all memory is to be had at once.
    async fn all_is_free(&self) {
        self.check_limit();
        let all = ByteRange::new(0, LIMIT).expect("not empty");
        let pinned = self.cache.pin(object(99), all, &self.request).await;
        pinned.expect("no deadline").expect("demand gets memory");
        assert_eq!(self.cache.used(), LIMIT);
        assert!(lock(&self.cache.blocks).len() <= 2);
    }
}

/// A request under way, and what is still to come of it.
struct Fetching<'a> {
    world: &'a World,
    object: CachedObject,
    rest: ByteRange,
}

impl<'a> Fetching<'a> {
    fn begin(world: &'a World, object: CachedObject, range: ByteRange) -> Self {
        let mut all = world.fetching.lock().expect("no panic");
        let overlaps = |other: &(CachedObject, ByteRange)| {
            other.0 == object && other.1.start() < range.end() && range.start() < other.1.end()
        };
        assert!(!all.iter().any(overlaps), "{range:?} is fetched twice");
        all.push((object, range));
        Self {
            world,
            object,
            rest: range,
        }
    }

    fn goes_on(&mut self, rest: Option<ByteRange>) {
        let Ok(mut all) = self.world.fetching.lock() else {
            return;
        };
        all.retain(|other| *other != (self.object, self.rest));
        if let Some(rest) = rest {
            all.push((self.object, rest));
            self.rest = rest;
        }
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.goes_on(None);
    }
}

/// Readers that together want more than there is.
fn readers(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    let wanted = [
        (1, units(0, ALL)),
        (1, units(2, ALL + 2)),
        (2, units(0, ALL)),
        (3, units(ALL - 1, 2 * ALL)),
    ];
    let read = |(number, wanted)| {
        let world = Arc::clone(world);
        spawn(async move { world.read(object(number), wanted).await })
    };
    wanted.map(read).into()
}

async fn several_readers() {
    let world = World::new();
    for reader in readers(&world) {
        reader.await.expect("it comes through");
    }
    world.all_is_free().await;
}

#[test]
fn readers_all_come_through_within_the_limit() {
    explore(several_readers);
}

async fn readers_that_leave() {
    let world = World::new();
    let readers = readers(&world);
    for _ in 0..thread_rng().gen_range(0..10) {
        yield_now().await;
    }
    readers[1].abort();
    readers[2].abort();
    for (nth, reader) in readers.into_iter().enumerate() {
        let done = reader.await;
        assert!(done.is_ok() || (1..=2).contains(&nth));
    }
    world.all_is_free().await;
}

#[test]
fn readers_that_are_given_up_hold_up_nobody() {
    explore(readers_that_leave);
}

async fn guesses_beside_demand() {
    let world = World::new();
    let guess = |number, wanted| {
        let world = Arc::clone(&world);
        spawn(async move {
            let request = world.request.as_prefetch();
            let pinned = world.cache.pin(object(number), wanted, &request).await;
            world.check_limit();
            let Some(pinned) = pinned.expect("no waiting") else {
                return;
            };
            for fill in pinned.claim(wanted) {
                world.fetch(object(number), fill).await;
            }
        })
    };
    let guesses = [guess(1, units(4, 2 * ALL - 2)), guess(4, units(0, 4))];
    let read = |number, wanted| {
        let world = Arc::clone(&world);
        spawn(async move { world.read(object(number), wanted).await })
    };
    let readers = [read(1, units(0, ALL)), read(2, units(2, ALL + 2))];
    for task in guesses.into_iter().chain(readers) {
        task.await.expect("it comes through");
    }
    world.all_is_free().await;
}

#[test]
fn guesses_do_not_hold_up_demand() {
    explore(guesses_beside_demand);
}

/// There is no connection for a guess before demand is through.
async fn a_guess_that_gives_way() {
    let world = World::new();
    let connections = Arc::new(Semaphore::new(0));
    let guess = spawn({
        let (world, connections) = (Arc::clone(&world), Arc::clone(&connections));
        async move {
            let (object, wanted) = (object(1), units(4, 2 * ALL - 2));
            let request = world.request.as_prefetch();
            let pinned = world.cache.pin(object, wanted, &request).await;
            let pinned = pinned.expect("no waiting");
            for fill in pinned.iter().flat_map(|pinned| pinned.claim(wanted)) {
                let request = request.until_awaited(fill.awaited(), false);
                let connection = pin!(connections.acquire());
                select(connection, pin!(request.is_awaited())).await;
                world.fetch(object, fill).await;
            }
        }
    });
    let read = |wanted| {
        let world = Arc::clone(&world);
        spawn(async move { world.read(object(1), wanted).await })
    };
    for reader in [read(units(5, 9)), read(units(ALL - 1, ALL + 5))] {
        reader.await.expect("it comes through");
    }
    connections.close();
    guess.await.expect("it comes through");
    world.all_is_free().await;
}

#[test]
fn a_guess_without_a_connection_hears_of_who_waits_for_it() {
    explore(a_guess_that_gives_way);
}
