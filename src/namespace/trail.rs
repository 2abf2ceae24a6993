//! Listing ahead of a program that asks for names by itself, in one directory after the other (the chunks of a Zarr
//! array, some files of each granule), as a walk would ask for all of them.
//!
//! When the third directory follows in which a name is not known, what comes behind that name is listed without a
//! delimiter: the names of many small directories come with one page. Where nothing that was listed so gets used, that
//! is done ever more rarely.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::key_space::just_behind;
use super::rarely::Rarely;
use super::{Dir, Namespace, PAGE, split};
use crate::request::Request;
use crate::s3::{Error, ListFrom, ListQuery};
use crate::sync::{Arc, lock, spawn, timeout, watch};

/// So many directories in order are a trail.
const EVIDENCE: u32 = 3;
/// A page takes some 100 ms; who has waited longer for one asks for himself.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many programs, or threads, are told apart.
const TRAILS: usize = 16;

/// Where names that were not known were asked for.
#[derive(Debug, Default)]
pub(super) struct Trails {
    /// The one used last at the end.
    trails: VecDeque<Trail>,
    pub(super) listings: Rarely,
    coming: Option<Coming>,
}

#[derive(Debug)]
struct Trail {
    /// The key of the latest.
    last: String,
    /// How many directories followed in order.
    onward: u32,
}

/// A listing under way.
#[derive(Clone, Debug)]
struct Coming {
    /// What it lists, and behind which key.
    root: String,
    after: String,
    /// Closed when it is over.
    done: watch::Receiver<()>,
}

impl Trails {
    /// Notes that `key` is not known. What to list from there on, if that is due.
    fn unknown(&mut self, key: &str) -> Option<String> {
        let nearest = (0..self.trails.len()).max_by_key(|i| common(&self.trails[*i].last, key));
        let trail = nearest.and_then(|i| self.trails.remove(i));
        let (trail, root) = match trail {
            Some(trail) if split(&trail.last).0 == split(key).0 => (trail, None),
            Some(mut trail) if *trail.last < *key => {
                // What is in the directory that was asked for is the same one.
                let is_below = key.starts_with(&trail.last);
                trail.onward += u32::from(!is_below);
                let root = &key[..common(&trail.last, key)];
                trail.last = key.to_owned();
                let is_one = trail.onward >= EVIDENCE;
                (trail, is_one.then(|| root.to_owned()))
            }
            other => {
                // Of another program, it may be, or back to where this one began.
                self.trails.extend(other);
                let (last, onward) = (key.to_owned(), 1);
                (Trail { last, onward }, None)
            }
        };
        self.trails.push_back(trail);
        if self.trails.len() > TRAILS {
            self.trails.pop_front();
        }
        root.filter(|_| self.coming.is_none() && self.listings.is_due())
    }
}

/// The length of the directory that two keys have in common.
fn common(a: &str, b: &str) -> usize {
    let both = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let slash = a.as_bytes()[..both].iter().rposition(|byte| *byte == b'/');
    slash.map_or(0, |slash| slash + 1)
}

impl Namespace {
    /// Waits for a listing of a trail that is under way and will tell of `name` in `dir`.
    pub(super) async fn trailed(&self, dir: &Dir, name: &str) {
        let coming = lock(&self.trails).coming.clone();
        let Some(mut coming) = coming else { return };
        let is_in_it =
            dir.prefix.starts_with(&coming.root) && coming.after < format!("{}{name}", dir.prefix);
        if is_in_it {
            // Nothing is ever sent: it ends by being closed.
            let _ = timeout(PATIENCE, coming.done.changed()).await;
        }
    }

    /// Notes that `name` is unknown and about to be asked for; lists what follows if it is one of a trail.
    pub(super) fn trail(self: &Arc<Self>, dir: &Dir, name: &str, request: &Request) {
        if self.ttl.is_zero() || self.is_denied(dir) {
            return;
        }
        let after = format!("{}{name}", dir.prefix);
        let (sender, done) = watch::channel(());
        let root = {
            let mut trails = lock(&self.trails);
            let Some(root) = trails.unknown(&after) else {
                return;
            };
            trails.coming = Some(Coming {
                root: root.clone(),
                after: after.clone(),
                done,
            });
            root
        };
        let namespace = Arc::clone(self);
        let request = request.as_prefetch();
        spawn(async move {
            let listed = namespace.list_trail(&root, &after, &request).await;
            if let Err(error) = listed {
                tracing::debug!(after, "listing ahead: {error}");
            }
            lock(&namespace.trails).coming = None;
            drop(sender);
        });
    }

    /// One page of all that lies below `root` behind the key `after`.
    async fn list_trail(&self, root: &str, after: &str, request: &Request) -> Result<(), Error> {
        let asked = Instant::now();
        // Also one that is denied: it may be allowed below certain prefixes only.
        lock(&self.trails).listings.asked(asked);
        let query = ListQuery {
            prefix: root,
            delimited: false,
            from: ListFrom::After(after),
            max_keys: PAGE as u16,
        };
        let page = self.s3.list(query, request).await?;
        self.learn_tree(root, &just_behind(after), page, asked);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these are listed from, and what.
    fn due<'a>(keys: impl IntoIterator<Item = &'a String>) -> Vec<(&'a str, String)> {
        let mut trails = Trails::default();
        let due = keys.into_iter().filter_map(|key| {
            let root = trails.unknown(key)?;
            trails.listings.asked(Instant::now());
            Some((&**key, root))
        });
        due.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_directory_in_order_is_listed_from_and_later_ones_ever_more_rarely() {
        let keys: Vec<_> = (0..40)
            .map(|i| format!("z/c/{}/{}/0", i / 4, i % 4))
            .collect();
        let due = due(&keys);
        let at = |key: &str| keys.iter().position(|it| it == key).expect("one of them");
        assert_eq!(due[0], ("z/c/0/2/0", "z/c/0/".to_owned()));
        let at: Vec<_> = due.iter().map(|(key, _)| at(key)).collect();
        assert_eq!(at, [2, 3, 5, 9, 17, 33]);
        assert_eq!(due[4].1, "z/c/4/");
    }

    #[test]
    fn names_of_one_directory_or_of_any_are_no_trail() {
        let one: Vec<_> = (0..100).map(|i| format!("d/{i:03}")).collect();
        assert!(due(&one).is_empty());
        let mut random = fastrand::Rng::with_seed(3);
        let any: Vec<_> = (0..1000)
            .map(|_| format!("{:04}/x", random.u32(..9999)))
            .collect();
        assert!(due(&any).len() <= 8, "{}", due(&any).len());
    }

    #[test]
    fn what_gets_used_goes_on() {
        let mut trails = Trails::default();
        let mut listed = 0;
        for i in 0..100 {
            if trails.unknown(&format!("{i:03}/x")).is_some() {
                listed += 1;
                let asked = Instant::now();
                trails.listings.asked(asked);
                trails.listings.used(asked);
            }
        }
        assert_eq!(listed, 98);
    }

    #[test]
    fn several_programs_each_have_a_trail() {
        let mut trails = Trails::default();
        let mut listed = std::collections::BTreeMap::new();
        for i in 0..20 {
            for program in ["a/u", "a/v", "b"] {
                if let Some(root) = trails.unknown(&format!("{program}/{i:03}/x")) {
                    *listed.entry(root).or_insert(0) += 1;
                }
            }
        }
        for root in ["a/u/", "a/v/", "b/"] {
            assert!(
                listed.get(root).is_some_and(|times| *times >= 16),
                "{listed:?}"
            );
        }
        assert!(listed.len() <= 4, "until they are told apart: {listed:?}");
    }
}
