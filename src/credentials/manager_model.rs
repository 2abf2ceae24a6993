//! The manager under all kinds of schedules (`scripts/model`): one fetch at a time, one for each
//! generation that is rejected, and nobody who waits is forgotten.

use std::collections::BTreeSet;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::AtomicU32;

use shuttle::current::{Labels, me, set_label_for_task};
use shuttle::future::yield_now;
use shuttle::rand::{Rng, thread_rng};
use shuttle_tokio::time::{clear_triggers, trigger_timeouts};

use super::*;
use crate::sync::explore;

const HOUR: Duration = Duration::from_secs(3600);

/// A clock that goes on by so many seconds whenever somebody looks.
struct Ticking(AtomicU32, u32);

impl Clock for Ticking {
    fn now(&self) -> Duration {
        if self.1 > 0 {
            // What else happens in that time.
            shuttle::thread::yield_now();
        }
        let before = self.0.fetch_add(self.1, Ordering::Relaxed);
        Duration::from_secs(before.into())
    }
}

#[derive(Default)]
struct Script {
    /// How many fetches fail at first.
    failures: u32,
    fetching: AtomicU32,
    fetched: AtomicU32,
}

struct Scripted(Arc<Script>);

impl Source for Scripted {
    fn fetch<'a>(&'a self, _replaces: Option<&'a str>) -> Fetch<'a> {
        Box::pin(async {
            let script = &self.0;
            let before = script.fetching.fetch_add(1, Ordering::SeqCst);
            assert_eq!(before, 0, "two fetches at a time");
            yield_now().await;
            yield_now().await;
            script.fetching.fetch_sub(1, Ordering::SeqCst);
            let number = script.fetched.fetch_add(1, Ordering::SeqCst) + 1;
            if number <= script.failures {
                return Err(earthdata::Error::ServerFails {
                    endpoint: "e".to_owned(),
                    status: 503,
                    detail: String::new(),
                });
            }
            Ok(Grant {
                access_key_id: format!("ASIA{number}"),
                secret_access_key: "secret".into(),
                session_token: "token".into(),
                remaining: HOUR,
                clock_ahead: 0,
            })
        })
    }

    fn name(&self) -> &str {
        "https://e/s3credentials"
    }
}

fn start(failures: u32, ticks: u32) -> (Manager, Arc<Script>) {
    let script = Arc::new(Script {
        failures,
        ..Script::default()
    });
    let policy = Policy {
        forced_refresh_pause: Duration::ZERO,
        ..Policy::default()
    };
    let clock = Ticking(AtomicU32::new(0), ticks);
    let source = Scripted(Arc::clone(&script));
    (Manager::start(source, clock, policy), script)
}

/// Timeouts never expire here: a renewal that is not woken is a deadlock.
async fn rejections() {
    let (manager, script) = start(0, 0);
    let rejected = Arc::new(StdMutex::new(BTreeSet::new()));
    let caller = |_| {
        let (manager, rejected) = (manager.clone(), Arc::clone(&rejected));
        spawn(async move {
            let mut last = String::new();
            for _ in 0..2 {
                let held = manager.current().await.expect("nothing fails");
                assert_ne!(held.access_key_id, last, "handed out again");
                last.clone_from(&held.access_key_id);
                manager.invalidate(&held);
                rejected.lock().expect("no panic").insert(last.clone());
            }
        })
    };
    let callers: Vec<_> = (0..3).map(caller).collect();
    for caller in callers {
        caller.await.expect("it comes through");
    }
    let last = manager.current().await.expect("nothing fails");
    let mut rejected = rejected.lock().expect("no panic");
    assert!(!rejected.contains(&last.access_key_id));
    rejected.insert(last.access_key_id.clone());
    let fetched = script.fetched.load(Ordering::SeqCst);
    assert_eq!(rejected.len(), fetched as usize, "{rejected:?}");
}

#[test]
fn what_is_rejected_is_replaced_once_and_all_hear_of_it() {
    explore(rejections);
}

/// Who waits for the first ones while they come, where nothing else will happen for an hour.
async fn first() {
    let (manager, _) = start(0, 0);
    let first = manager.first(Policy::default().wait).await;
    first.expect("nothing fails");
}

#[test]
fn the_first_credentials_are_not_missed() {
    explore(first);
}

#[derive(Clone, Debug)]
struct Impatient;

/// A source that fails, callers that leave, and one that runs out of patience.
async fn outage() {
    clear_triggers();
    trigger_timeouts(|labels: &Labels| labels.get::<Impatient>().is_some());
    // The pauses of the task that renews are over at once; time goes on, and credentials end.
    set_label_for_task(me(), Impatient);
    let (manager, script) = start(2, 60);
    let impatient = spawn({
        let manager = manager.clone();
        async move {
            let _ = manager.current().await;
        }
    });
    shuttle::current::remove_label_for_task::<Impatient>(me());
    let caller = |_| {
        let manager = manager.clone();
        spawn(async move {
            let begin = manager.shared.clock.now();
            let held = manager.current().await.expect("in the end");
            assert!(held.expires > begin, "expired before it was asked for");
        })
    };
    let callers: Vec<_> = (0..3).map(caller).collect();
    for _ in 0..thread_rng().gen_range(0..6) {
        yield_now().await;
    }
    callers[0].abort();
    for (nth, caller) in callers.into_iter().enumerate() {
        assert!(caller.await.is_ok() || nth == 0);
    }
    impatient.await.expect("it comes through");
    assert!(script.fetched.load(Ordering::SeqCst) > 2);
    assert_eq!(manager.shared.waiting.load(Ordering::SeqCst), 0);
}

#[test]
fn callers_come_through_an_outage_and_those_who_leave_are_not_counted() {
    explore(outage);
}
