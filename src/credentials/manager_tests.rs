//! The manager on tokio's paused clock, with a source that is told what to answer.

use std::collections::VecDeque;

use super::*;
use crate::sync::{AtomicBool, Mutex, lock};

/// tokio's clock, so that pausing it pauses expiry too.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Default)]
struct Script {
    /// The life of the next grants, or a failure; when it is empty, an hour each.
    answers: Mutex<VecDeque<Option<Duration>>>,
    fetched: AtomicU64,
    /// Whether it gives the same credentials each time.
    is_cached: AtomicBool,
}

struct Scripted(Arc<Script>);

impl Source for Scripted {
    fn fetch<'a>(&'a self, _replaces: Option<&'a str>) -> Fetch<'a> {
        Box::pin(async {
            let number = self.0.fetched.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let answer = lock(&self.0.answers).pop_front();
            match answer.unwrap_or(Some(HOUR)) {
                Some(remaining) => Ok(Grant {
                    access_key_id: match self.0.is_cached.load(Ordering::Relaxed) {
                        true => "ASIA1".to_owned(),
                        false => format!("ASIA{number}"),
                    },
                    secret_access_key: "secret".into(),
                    session_token: "token".into(),
                    remaining,
                    clock_ahead: 0,
                }),
                None => Err(earthdata::Error::ServerFails {
                    endpoint: "e".to_owned(),
                    status: 503,
                    detail: String::new(),
                }),
            }
        })
    }

    fn name(&self) -> &str {
        "https://e/s3credentials"
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn start(answers: &[Option<Duration>]) -> (Manager, Arc<Script>) {
    let script = Arc::new(Script::default());
    lock(&script.answers).extend(answers);
    let clock = TokioClock(Instant::now());
    let source = Scripted(Arc::clone(&script));
    (Manager::start(source, clock, Policy::default()), script)
}

fn fetched(script: &Script) -> u64 {
    script.fetched.load(Ordering::Relaxed)
}

async fn id(manager: &Manager) -> String {
    let current = manager.current().await.expect("credentials");
    current.access_key_id.clone()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_share_one_fetch() {
    let (manager, script) = start(&[]);
    let ids = futures_util::future::join_all((0..100).map(|_| id(&manager))).await;
    assert!(ids.iter().all(|id| id == "ASIA1"));
    assert_eq!(fetched(&script), 1);
}

#[tokio::test(start_paused = true)]
async fn renews_at_three_quarters_and_serves_the_old_until_then() {
    let (manager, script) = start(&[]);
    assert_eq!(id(&manager).await, "ASIA1");
    tokio::time::sleep(HOUR.mul_f64(0.64)).await;
    assert_eq!(
        (id(&manager).await.as_str(), fetched(&script)),
        ("ASIA1", 1)
    );
    tokio::time::sleep(HOUR.mul_f64(0.12)).await;
    assert_eq!(
        (id(&manager).await.as_str(), fetched(&script)),
        ("ASIA2", 2)
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_is_that_of_the_credentials_handed_out() {
    let (manager, _script) = start(&[]);
    let first = manager.current().await.expect("credentials");
    tokio::time::sleep(HOUR.mul_f64(0.8)).await;
    assert_eq!(id(&manager).await, "ASIA2");
    let left = HOUR.mul_f64(0.2);
    assert!(manager.remaining(&first) <= left);
    assert!(manager.end(&first) <= SystemTime::now() + left);
}

#[tokio::test(start_paused = true)]
async fn old_credentials_serve_through_an_outage_until_they_expire() {
    let mut answers = vec![Some(HOUR)];
    answers.extend([None; 200]);
    let (manager, _script) = start(&answers);
    assert_eq!(id(&manager).await, "ASIA1");
    tokio::time::sleep(HOUR.mul_f64(0.99)).await;
    assert_eq!(id(&manager).await, "ASIA1");
    tokio::time::sleep(HOUR.mul_f64(0.02)).await;
    let begin = Instant::now();
    let error = manager.current().await.expect_err("expired");
    assert_eq!(begin.elapsed(), Policy::default().wait);
    assert!(error.to_string().contains("HTTP 503"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn heals_within_seconds_when_somebody_waits() {
    let mut answers = vec![None; 300];
    answers.push(Some(HOUR));
    let (manager, script) = start(&answers);
    while fetched(&script) < 300 {
        // everybody waits, in turn, as the readers of a mount do
        let _ = manager.current().await;
    }
    let begin = Instant::now();
    id(&manager).await;
    assert!(
        begin.elapsed() <= Duration::from_secs(7),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_to_a_minute_while_nobody_waits() {
    let (_manager, script) = start(&[None; 1000]);
    tokio::time::sleep(HOUR).await;
    // full jitter: half a minute on average
    assert!(
        (60..=200).contains(&fetched(&script)),
        "{}",
        fetched(&script)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_rejected_and_given_again_is_tried_again() {
    let (manager, script) = start(&[]);
    script.is_cached.store(true, Ordering::Relaxed);
    let first = manager.current().await.expect("credentials");
    manager.invalidate(&first);
    assert!(manager.valid().is_none());
    assert_eq!(id(&manager).await, "ASIA1");
    // Of a request that was signed before.
    manager.invalidate(&first);
    assert!(manager.valid().is_some());
    assert_eq!(fetched(&script), 2);
}

#[tokio::test(start_paused = true)]
async fn invalidate_refreshes_once_for_all_who_say_so() {
    let (manager, script) = start(&[]);
    let first = manager.current().await.expect("credentials");
    for _ in 0..10 {
        manager.invalidate(&first);
    }
    assert!(manager.valid().is_none());
    assert_eq!(id(&manager).await, "ASIA2");
    manager.invalidate(&first); // old news
    assert_eq!(id(&manager).await, "ASIA2");
    assert_eq!(fetched(&script), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lies_is_asked_once_in_30_seconds() {
    let (manager, script) = start(&[]);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(300) {
        manager.invalidate(&manager.current().await.expect("credentials"));
    }
    assert!(
        (10..=12).contains(&fetched(&script)),
        "{}",
        fetched(&script)
    );
}

#[tokio::test(start_paused = true)]
async fn credentials_with_little_life_left_are_used_and_renewed_early() {
    let (manager, script) = start(&[Some(Duration::from_secs(60)); 3]);
    assert_eq!(id(&manager).await, "ASIA1");
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(
        (id(&manager).await.as_str(), fetched(&script)),
        ("ASIA2", 2)
    );
}

#[tokio::test(start_paused = true)]
async fn first_fails_at_once_when_waiting_cannot_help() {
    struct Refusing;
    impl Source for Refusing {
        fn fetch<'a>(&'a self, _replaces: Option<&'a str>) -> Fetch<'a> {
            Box::pin(std::future::ready(Err(earthdata::Error::EulaNotAccepted {
                endpoint: "e".to_owned(),
                resolution_url: "https://urs/approve_app".to_owned(),
            })))
        }
        fn name(&self) -> &str {
            "e"
        }
    }
    let begin = Instant::now();
    let manager = Manager::start(Refusing, TokioClock(begin), Policy::default());
    let error = manager.first(Duration::from_secs(20)).await;
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("https://urs/approve_app"), "{error}");
    assert_eq!(begin.elapsed(), Duration::ZERO);
}
