//! Folds repeated causes: the first warning is logged at once, the same ones of the next minute are
//! counted, and then told in one line ("and 341 more in 60 s").
//!
//! Two warnings have one cause when they come from the same place in the code with the same message;
//! fields, such as the file that was read, may differ.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Causes that are watched at once; more than these are not folded.
pub(super) const MOST_CAUSES: usize = 1000;
/// Two messages that begin with as many equal bytes have one cause, as far as it is worth memory.
pub(super) const LONGEST_MESSAGE: usize = 1024;
/// The target of the lines that tell of others, which are not folded themselves.
const TARGET: &str = "s3credmount::folded";

pub(super) struct Fold(Arc<Shared>);

#[derive(Default)]
struct Shared {
    causes: Mutex<HashMap<Cause, Repeats>>,
    changed: Condvar,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Cause {
    place: tracing::callsite::Identifier,
    message: String,
}

impl Cause {
    fn new(place: tracing::callsite::Identifier, mut message: String) -> Self {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.shrink_to_fit();
        Self { place, message }
    }
}

struct Repeats {
    since: Instant,
    more: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Cause, Repeats>> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to log this one; counts it if not.
    fn is_first(&self, cause: Cause, now: Instant) -> bool {
        let mut causes = self.lock();
        if let Some(repeats) = causes.get_mut(&cause) {
            repeats.more += 1;
            return false;
        }
        if causes.len() < MOST_CAUSES {
            let repeats = Repeats {
                since: now,
                more: 0,
            };
            causes.insert(cause, repeats);
            self.changed.notify_one();
        }
        true
    }

    /// Forgets the causes whose minute is over; those that came again, with how often.
    fn over(&self, now: Instant) -> Vec<(String, u64)> {
        let gone = |repeats: &Repeats| now.duration_since(repeats.since) >= WINDOW;
        let mut causes = self.lock();
        let over = causes.extract_if(|_, repeats| gone(repeats));
        let told = over.filter(|(_, repeats)| repeats.more > 0);
        told.map(|(cause, repeats)| (cause.message, repeats.more))
            .collect()
    }
}

impl Fold {
    /// Starts the thread that tells of repeats.
    pub(super) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let weak = Arc::downgrade(&shared);
        let teller = std::thread::Builder::new().name("s3credmount-fold".to_owned());
        // Without it repeats are counted and not told.
        let _ = teller.spawn(move || tell(&weak));
        Self(shared)
    }
}

/// Sleeps while no cause is watched, and until the oldest one's minute is over.
fn tell(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let causes = shared.lock();
        let oldest = causes.values().map(|repeats| repeats.since).min();
        match oldest {
            None => drop(shared.changed.wait(causes)),
            Some(since) => {
                let left = WINDOW.saturating_sub(since.elapsed());
                drop(causes);
                std::thread::sleep(left);
                for (message, more) in shared.over(Instant::now()) {
                    let window = WINDOW.as_secs();
                    tracing::warn!(target: TARGET, "{message} (and {more} more in {window} s)");
                }
            }
        }
    }
}

impl<S> Filter<S> for Fold {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || metadata.target() == TARGET {
            return true;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let cause = Cause::new(metadata.callsite(), message.0);
        self.0.is_first(cause, Instant::now())
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Folding by itself, of warnings that all come from one place.
#[cfg(any(test, fuzzing))]
#[derive(Default)]
pub(super) struct Folding(Shared);

#[cfg(any(test, fuzzing))]
impl Folding {
    pub(super) fn is_first(&self, message: &str, now: Instant) -> bool {
        self.0.is_first(cause(message), now)
    }

    pub(super) fn told(&self, now: Instant) -> Vec<(String, u64)> {
        self.0.over(now)
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

#[cfg(any(test, fuzzing))]
fn cause(message: &str) -> Cause {
    static PLACE: tracing::callsite::DefaultCallsite = {
        static META: Metadata<'static> = tracing::metadata! {
            name: "test", target: "test", level: Level::WARN, fields: &[],
            callsite: &PLACE, kind: tracing::metadata::Kind::EVENT
        };
        tracing::callsite::DefaultCallsite::new(&META)
    };
    Cause::new(tracing::callsite::Identifier(&PLACE), message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_the_rest_of_the_minute_counted() {
        let shared = Shared::default();
        let now = Instant::now();
        assert!(shared.is_first(cause("a"), now));
        assert!(shared.is_first(cause("b"), now));
        for _ in 0..341 {
            assert!(!shared.is_first(cause("a"), now + WINDOW / 2));
        }
        assert!(shared.over(now + WINDOW / 2).is_empty());
        assert_eq!(shared.over(now + WINDOW), [("a".to_owned(), 341)]);
        assert!(shared.is_first(cause("a"), now + WINDOW));
    }

    #[test]
    fn what_is_kept_of_a_message_is_bounded() {
        let shared = Shared::default();
        let long = "é".repeat(100_000);
        assert!(shared.is_first(cause(&long), Instant::now()));
        assert!(!shared.is_first(cause(&long[..2 * LONGEST_MESSAGE]), Instant::now()));
        let lengths = |causes: &HashMap<Cause, Repeats>| -> usize {
            causes.keys().map(|cause| cause.message.capacity()).sum()
        };
        assert_eq!(lengths(&shared.lock()), LONGEST_MESSAGE);
    }

    #[test]
    fn the_causes_watched_are_bounded() {
        let shared = Shared::default();
        for i in 0..2 * MOST_CAUSES {
            assert!(shared.is_first(cause(&i.to_string()), Instant::now()));
        }
        assert_eq!(shared.lock().len(), MOST_CAUSES);
    }
}
