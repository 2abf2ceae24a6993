//! Listing ahead of a program that asks for names by itself, in one directory after the other (the chunks of a Zarr
//! array, some files of each granule), as a walk would ask for all of them.
//!
//! When the third directory follows in which a name is not known, what comes behind that name is listed without a
//! delimiter: the names of many small directories come with one page. Where the directories come in another order (the
//! latest first, or as dask reads the chunks of an array), the page begins somewhat before. Where nothing that was
//! listed so gets used, that is done ever more rarely.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::key_space::just_behind;
use super::rarely::Rarely;
use super::under_way::UnderWay;
use super::walk::parent;
use super::{Dir, Namespace, PAGE, split};
use crate::request::Request;
use crate::s3::{Error, ListFrom, ListQuery};
use crate::sync::{Arc, lock, spawn};

/// So many directories are a trail.
const EVIDENCE: u32 = 3;
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
    /// How many directories followed in order, and how many came in another before that.
    onward: u32,
    back: u32,
}

/// What to list: of this directory what lies behind a key.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    root: String,
    after: String,
}

/// A listing under way.
#[derive(Clone, Debug)]
struct Coming {
    /// What it lists, and behind which key.
    root: String,
    after: String,
    under_way: UnderWay,
}

impl Trails {
    /// Notes that `key`, which lies below `top`, is not known. What to list, if that is due.
    fn unknown(&mut self, key: &str, top: &str) -> Option<Due> {
        let nearest = (0..self.trails.len()).max_by_key(|i| common(&self.trails[*i].last, key));
        let trail = nearest.and_then(|i| self.trails.remove(i));
        let last = key.to_owned();
        let (trail, due) = match trail {
            Some(trail) if split(&trail.last).0 == split(key).0 => (trail, None),
            Some(mut trail) if *trail.last < *key => {
                // What is in the directory that was asked for is the same one.
                let is_below = key.starts_with(&trail.last);
                trail.onward += u32::from(!is_below);
                let root = key[..common(&trail.last, key)].to_owned();
                trail.last = last;
                let after = key.to_owned();
                (trail, Some(Due { root, after }))
            }
            Some(old) => {
                let due = before(key, common(&old.last, key), top);
                let back = old.back + 1;
                // It may be another program's.
                if old.onward > 1 {
                    self.trails.push_back(old);
                }
                let onward = 1;
                (Trail { last, onward, back }, Some(due))
            }
            None => {
                let (onward, back) = (1, 0);
                (Trail { last, onward, back }, None)
            }
        };
        let is_one = trail.onward + trail.back >= EVIDENCE;
        self.trails.push_back(trail);
        if self.trails.len() > TRAILS {
            self.trails.pop_front();
        }
        due.filter(|_| is_one && self.coming.is_none() && self.listings.is_due())
    }
}

/// What to list for `key`, which differs from the one before behind its first `common` bytes: from those on whose
/// name there is the same but for its end (numbers up to ten less), and beyond the directory that both are in, unless
/// that is the `top`.
fn before(key: &str, common: usize, top: &str) -> Due {
    let (both, behind) = key.split_at(common);
    let mut name = behind.split('/').next().unwrap_or_default().chars();
    name.next_back();
    let root = parent(both).filter(|above| above.starts_with(top));
    Due {
        root: root.unwrap_or(both).to_owned(),
        after: format!("{both}{}", name.as_str()),
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
        let Some(coming) = coming else { return };
        let is_in_it =
            dir.prefix.starts_with(&coming.root) && coming.after < format!("{}{name}", dir.prefix);
        if is_in_it {
            coming.under_way.wait().await;
        }
    }

    /// Notes that `name` is unknown and about to be asked for; lists what follows if it is one of a trail.
    pub(super) fn trail(self: &Arc<Self>, dir: &Dir, name: &str, request: &Request) {
        if self.ttl.is_zero() || self.is_denied(dir) {
            return;
        }
        let key = format!("{}{name}", dir.prefix);
        let (sender, under_way) = UnderWay::begin();
        let Due { root, after } = {
            let mut trails = lock(&self.trails);
            let Some(due) = trails.unknown(&key, self.root()) else {
                return;
            };
            trails.coming = Some(Coming {
                root: due.root.clone(),
                after: due.after.clone(),
                under_way,
            });
            due
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
            let due = trails.unknown(key, "")?;
            trails.listings.asked(Instant::now());
            Some((&**key, due.root))
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
        assert!(due(&any).len() <= 10, "{}", due(&any).len());
    }

    #[test]
    fn directories_in_another_order_are_listed_from_somewhat_before() {
        let mut trails = Trails::default();
        let mut due = |key: &str| {
            let due = trails.unknown(key, "z/")?;
            let asked = Instant::now();
            trails.listings.asked(asked);
            trails.listings.used(asked);
            Some((due.root, due.after))
        };
        let listed = |root: &str, after: &str| Some((root.to_owned(), after.to_owned()));
        assert_eq!(due("z/c/123/2/0"), None);
        assert_eq!(due("z/c/123/1/0"), None);
        assert_eq!(due("z/c/123/0/0"), listed("z/c/", "z/c/123/"));
        assert_eq!(due("z/c/119/2/0"), listed("z/", "z/c/11"));
        assert_eq!(due("z/c/99/2/0"), listed("z/c/", "z/c/99/2/0"), "onward");
        assert_eq!(due("z/c/9/2/0"), listed("z/", "z/c/"));
        assert_eq!(due("z/b/9/2/0"), listed("z/", "z/"));
    }

    #[test]
    fn what_gets_used_goes_on() {
        let mut trails = Trails::default();
        let mut listed = 0;
        for i in 0..100 {
            if trails.unknown(&format!("{i:03}/x"), "").is_some() {
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
                if let Some(due) = trails.unknown(&format!("{program}/{i:03}/x"), "") {
                    *listed.entry(due.root).or_insert(0) += 1;
                }
            }
        }
        for root in ["a/u/", "a/v/", "b/"] {
            assert!(
                listed.get(root).is_some_and(|times| *times >= 16),
                "{listed:?}"
            );
        }
        let all: u32 = listed.values().sum();
        assert!(all <= 60, "until they are told apart: {listed:?}");
    }
}
