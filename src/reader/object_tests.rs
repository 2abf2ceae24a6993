//! Unit tests of open objects, without anything fetched.

use super::super::shared::RECOUNT;
use super::*;
use crate::network::Network;
use crate::s3::pretended::{meta, range, settings};
use crate::s3::{S3, Settings};

const LIMIT: u64 = 64 << 20;
const MIB: u64 = 1 << 20;

fn reader() -> Arc<Reader> {
    let settings = Settings {
        max_connections: 8,
        ..settings()
    };
    let s3 = S3::new(settings, None, &Network::default());
    Reader::new(Arc::new(s3), LIMIT, Duration::from_secs(10))
}

fn open(reader: &Arc<Reader>, number: u64) -> OpenObject {
    reader.open(Arc::new(ObjectVersion {
        number: number.try_into().expect("not zero"),
        key: number.to_string().into(),
        meta: meta(40 * MIB, "\"e\""),
    }))
}

/// Reads a stream's first MiBs from `start` on.
fn stream(object: &OpenObject, start: u64) {
    for nth in 0..4 {
        object.plan(range(start + nth * MIB, MIB));
    }
}

#[tokio::test(start_paused = true)]
async fn files_that_are_merely_open_take_no_memory_from_the_one_that_is_read() {
    let reader = reader();
    let looked_at: Vec<_> = (1..=8).map(|number| open(&reader, number)).collect();
    for object in &looked_at {
        object.plan(range(0, 4096));
    }
    let (one, other) = (open(&reader, 9), open(&reader, 10));
    stream(&one, 0);
    assert_eq!(
        reader.window(),
        LIMIT / 2,
        "looks at headers are no streams"
    );
    stream(&other, 0);
    assert_eq!(reader.window(), LIMIT / 4);
    tokio::time::advance(2 * RECOUNT).await;
    stream(&other, 4 * MIB);
    assert_eq!(reader.window(), LIMIT / 2, "the first one has paused");
    stream(&one, 4 * MIB);
    assert_eq!(reader.window(), LIMIT / 4);
    drop((one, other));
    assert_eq!(reader.window(), LIMIT / 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_fetched_whole_makes_room_when_nobody_reads_it() {
    let reader = reader();
    let (one, other) = (open(&reader, 1), open(&reader, 2));
    let wait = |object: &OpenObject| {
        for nth in 1..8 {
            let read = range(nth * 5 * MIB, 4096);
            object.plan(read);
            object.access().width.around(read, 40 * MIB);
            object.waited(read, Duration::from_millis(30));
        }
        object.access().counted_whole
    };
    assert_eq!(wait(&one), 40 * MIB);
    assert_eq!(wait(&other), 0, "no room for both");
    tokio::time::advance(2 * RECOUNT).await;
    assert_eq!(wait(&other), 0, "it is still coming");
    let fetch_all = one.access().fetch_all.clone().expect("begun");
    fetch_all.abort();
    while !fetch_all.is_finished() {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(2 * RECOUNT).await;
    assert_eq!(wait(&other), 40 * MIB);
    drop((one, other));
    assert_eq!(reader.whole.load(Ordering::Relaxed), 0);
}
