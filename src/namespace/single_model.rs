//! Questions under all kinds of schedules (`scripts/model`): one at a time for a key, everybody hears
//! an answer, and nothing is left behind.

use std::sync::atomic::{AtomicU32, Ordering};

use shuttle::future::yield_now;
use shuttle::rand::{Rng, thread_rng};

use super::*;
use crate::sync::{explore, spawn};

#[derive(Default)]
struct World {
    questions: Questions<u32>,
    /// How many are asking, and how often an answer came.
    asking: AtomicU32,
    answers: AtomicU32,
}

/// One who asks.
struct Asking<'a>(&'a World);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.fetch_sub(1, Ordering::SeqCst);
    }
}

impl World {
    async fn question(&self) -> u32 {
        let before = self.asking.fetch_add(1, Ordering::SeqCst);
        let _asking = Asking(self);
        assert_eq!(before, 0, "two ask at a time");
        yield_now().await;
        yield_now().await;
        self.answers.fetch_add(1, Ordering::SeqCst) + 1
    }
}

async fn askers_of_whom_one_leaves() {
    let world = Arc::new(World::default());
    let ask = |_| {
        let world = Arc::clone(&world);
        spawn(async move {
            let key = "key".to_owned();
            let answer = world.questions.ask(key, world.question()).await;
            assert!((1..=world.answers.load(Ordering::SeqCst)).contains(&answer));
        })
    };
    let askers: Vec<_> = (0..4).map(ask).collect();
    for _ in 0..thread_rng().gen_range(0..6) {
        yield_now().await;
    }
    askers[0].abort();
    for (nth, asker) in askers.into_iter().enumerate() {
        assert!(asker.await.is_ok() || nth == 0);
    }
    assert_eq!(world.questions.len(), 0);
}

#[test]
fn one_asks_for_all_and_one_who_leaves_holds_up_nobody() {
    explore(askers_of_whom_one_leaves);
}
