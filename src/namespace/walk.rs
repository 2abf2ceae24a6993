//! Listing ahead of a walk (`find`, `du`, `ls -R`, `tar`).
//!
//! A walk enters the directories of one parent in turn. From the second one on, those that follow are
//! listed ahead: without a delimiter where they are small, so that one page holds many of them, and one
//! by one where they are large. What is listed ahead comes in batches that grow as they are used, so a
//! walk that stops early has wasted little.

use std::collections::BTreeMap;

use lru::LruCache;
use tokio::time::Instant;

use super::key_space::{Span, just_behind};
use super::names::{is_sayable, warn_of_left_out};
use super::ranges::keys_of;
use super::under_way::UnderWay;
use super::{Dir, Namespace, PAGE, split};
use crate::request::Request;
use crate::s3::{ListFrom, ListQuery, ObjectMeta, Page};
use crate::sync::{Arc, spawn, watch};

/// Requests in the first batch, and by how much the next one is larger.
const FIRST_BATCH: usize = 2;
const GROWTH: usize = 3;
const LARGEST_BATCH: usize = 16;
/// A page is planned for fewer keys than it holds, as not all directories are alike.
const PLANNED: usize = PAGE * 9 / 10;
/// A directory with more entries has a request of its own.
const SMALL: usize = PAGE / 2;
/// More pages in turn than these are not listed ahead.
const MOST_PAGES: usize = 4;
/// Parents whose directories are being entered in turn.
const WALKS: usize = 64;

/// The walks that seem to be under way, by the parent's prefix.
#[derive(Debug)]
pub(super) struct Walks(LruCache<Arc<str>, Walk>);

#[derive(Debug)]
struct Walk {
    /// The directory entered last.
    last: Arc<str>,
    batch: usize,
    /// From here on the next batch is due.
    due: Arc<str>,
    /// The last directory that is listed ahead.
    reached: Arc<str>,
    coming: Vec<Coming>,
}

/// A request under way.
#[derive(Debug)]
struct Coming {
    first: Arc<str>,
    last: Arc<str>,
    under_way: UnderWay,
}

impl Default for Walks {
    fn default() -> Self {
        Self(LruCache::new(
            std::num::NonZeroUsize::new(WALKS).expect("not zero"),
        ))
    }
}

/// What to ask for: the directory `first`, and those that follow it in `parent`.
#[derive(Debug)]
struct Ahead {
    parent: Arc<str>,
    first: Arc<str>,
    last: Arc<str>,
    /// How many pages that probably takes.
    pages: usize,
    one_by_one: bool,
    _done: watch::Sender<()>,
}

/// The prefix of the directory that holds the directory `prefix`; the top has none.
pub(super) fn parent(prefix: &str) -> Option<&str> {
    (!prefix.is_empty()).then(|| split(prefix).0)
}

impl Namespace {
    /// Notes that `dir` is being listed, and lists ahead if that looks like a walk.
    pub(super) fn entered(self: &Arc<Self>, dir: &Dir, request: &Request) {
        if self.ttl.is_zero() || self.is_denied(dir) {
            return;
        }
        let Some(parent) = parent(&dir.prefix).filter(|parent| parent.starts_with(self.root()))
        else {
            return;
        };
        // Nobody waits for it, and it may outlive who began it.
        let request = request.as_prefetch();
        for ahead in self.ahead(parent, &dir.prefix) {
            let (namespace, request) = (Arc::clone(self), request.clone());
            spawn(async move { namespace.list_ahead(ahead, &request).await });
        }
    }

    /// What to list ahead now that `entered` in `parent` is.
    fn ahead(&self, parent: &str, entered: &Arc<str>) -> Vec<Ahead> {
        let mut state = crate::sync::lock(&self.walks);
        let Some(walk) = state.0.get_mut(parent) else {
            state.0.put(Arc::from(parent), Walk::new(entered));
            return Vec::new();
        };
        if walk.last == *entered {
            return Vec::new();
        }
        let next = self.directories_behind(parent, &walk.last, 1);
        if next.first() != Some(entered) {
            *walk = Walk::new(entered);
            return Vec::new();
        }
        let before = std::mem::replace(&mut walk.last, Arc::clone(entered));
        if *entered < walk.due {
            return Vec::new();
        }
        let (entries, below) = self.known_size(&before);
        let one_by_one = entries > SMALL;
        let each = if one_by_one {
            1
        } else {
            (PLANNED / below.max(1)).max(1)
        };
        let from = Arc::clone((&walk.reached).max(entered));
        let mut siblings = self.directories_behind(parent, &from, each * walk.batch);
        let Some(last) = siblings.last() else {
            return Vec::new();
        };
        walk.reached = Arc::clone(last);
        walk.due = Arc::clone(last);
        siblings.retain(|prefix| self.whole_by_prefix(prefix).is_none());
        let Some(first) = siblings.first() else {
            return Vec::new();
        };
        walk.due = Arc::clone(first);
        walk.batch = (walk.batch * GROWTH).min(LARGEST_BATCH);
        walk.coming.retain(|coming| !coming.under_way.is_over());
        let parts = siblings.chunks(each).filter_map(|part| {
            let (first, last) = (part.first()?.clone(), part.last()?.clone());
            let (sender, under_way) = UnderWay::begin();
            walk.coming.push(Coming {
                first: Arc::clone(&first),
                last: Arc::clone(&last),
                under_way,
            });
            Some(Ahead {
                parent: Arc::from(parent),
                first,
                last,
                pages: (part.len() * below).div_ceil(PAGE).clamp(1, MOST_PAGES),
                one_by_one,
                _done: sender,
            })
        });
        parts.collect()
    }

    /// Waits for what is being listed ahead and holds `dir`, if anything is.
    pub(super) async fn listed_ahead(&self, dir: &Dir) {
        let mut coming = Vec::new();
        let mut above = parent(&dir.prefix);
        {
            let state = crate::sync::lock(&self.walks);
            while let Some(prefix) = above {
                let walk = state.0.peek(prefix);
                let all = walk.into_iter().flat_map(|walk| &walk.coming);
                let holding = all.filter(|coming| {
                    *coming.first <= *dir.prefix
                        && (dir.prefix <= coming.last || dir.prefix.starts_with(&*coming.last))
                });
                coming.extend(holding.map(|coming| coming.under_way.clone()));
                above = parent(prefix);
            }
        }
        for under_way in coming {
            under_way.wait().await;
        }
    }

    async fn list_ahead(&self, ahead: Ahead, request: &Request) {
        // Behind all siblings before `first`, and before its own marker.
        let mut after = format!("{}.", ahead.first.trim_end_matches('/'));
        let root = match ahead.one_by_one {
            true => &ahead.first,
            false => &ahead.parent,
        };
        let mut start = match ahead.one_by_one {
            true => Vec::new(),
            false => just_behind(&after),
        };
        for _ in 0..ahead.pages {
            let asked = Instant::now();
            let query = ListQuery {
                prefix: root,
                delimited: ahead.one_by_one,
                from: match start.is_empty() {
                    true => ListFrom::Start,
                    false => ListFrom::After(&after),
                },
                max_keys: PAGE as u16,
            };
            let page = match self.s3.list(query, request).await {
                Ok(page) => page,
                // Who needs it asks for it.
                Err(error) => {
                    tracing::debug!(from = &*ahead.first, "listing ahead: {error}");
                    return;
                }
            };
            let last = page.breaks_off_at().map(str::to_owned);
            self.learn_tree(root, &start, page, asked);
            match last {
                // A page that ends in a common prefix would begin with it again.
                Some(last) if !ahead.one_by_one && last.as_str() < &*ahead.last => after = last,
                _ => return,
            }
            start = just_behind(&after);
        }
    }

    /// Notes what `page` tells of `root` and of all directories below it that it reaches, from the key
    /// `start` on, or from the beginning of `root`.
    pub(super) fn learn_tree(&self, root: &str, start: &[u8], page: Page, asked: Instant) {
        let end = page.breaks_off_at().map(just_behind);
        let mut found: BTreeMap<String, Vec<(String, Option<ObjectMeta>)>> = BTreeMap::new();
        'keys: for (key, meta) in keys_of(page) {
            let mut at = root.len();
            while let Some(slash) = key[at..].find('/') {
                let (directory, child) = (&key[..at], &key[..=at + slash]);
                let children = found.entry(directory.to_owned()).or_default();
                if children.last().is_none_or(|(last, _)| last != child) {
                    children.push((child.to_owned(), None));
                }
                if !is_sayable(&key[at..at + slash]) {
                    continue 'keys;
                }
                at += slash + 1;
                // Of a common prefix, nothing below it is known.
                if at < key.len() || meta.is_some() {
                    found.entry(child.to_owned()).or_default();
                }
            }
            if at < key.len() {
                let files = found.entry(key[..at].to_owned()).or_default();
                files.push((key, meta));
            }
        }
        for (prefix, mut keys) in found {
            let within = |bound: &[u8]| bound.strip_prefix(prefix.as_bytes()).map(<[u8]>::to_vec);
            let start = within(start).unwrap_or_default();
            let end = end.as_deref().and_then(within);
            keys.retain(|(key, _)| key.as_bytes()[prefix.len()..] >= *start);
            let span = Span { start, end };
            let learned = self.learn_keys(&Arc::from(&*prefix), span, asked, keys);
            warn_of_left_out(&prefix, learned.left_out);
        }
    }
}

impl Walk {
    fn new(entered: &Arc<str>) -> Self {
        Self {
            last: Arc::clone(entered),
            batch: FIRST_BATCH,
            due: Arc::clone(entered),
            reached: Arc::clone(entered),
            coming: Vec::new(),
        }
    }
}
