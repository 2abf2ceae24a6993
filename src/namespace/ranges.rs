//! Listing a directory by several requests side by side, its pages in order.
//!
//! A LIST goes from page to page, so one alone is as slow as its pages are many. From the second page
//! on, what is still to come is split into ranges ([`super::shape`] says where), each listed by
//! itself, the first ones first. A range is split further while there are requests to spare, and gets
//! no finer than a page.
//!
//! Invariants: ranges are in order, and each begins where the one before it ends, so nothing is lost or
//! doubled whatever the keys look like and whatever changes meanwhile; a page that goes beyond the end
//! of its range is cut there. No bound at which a range is split holds a `/`, as a LIST that starts inside
//! a common prefix lists that prefix again; only the first range may begin so. Pages that wait for the
//! reader, and those under way, are at most twice [`AHEAD`].

use std::collections::VecDeque;

use tokio::time::Instant;

use super::PAGE;
use super::key_space::{End, just_behind};
use super::shape::Shape;
use crate::request::{Awaited, Class, Request};
use crate::s3::{Error, ListFrom, ListQuery, ObjectMeta, Page, S3};
use crate::sync::{Arc, JoinSet};

/// Ranges are about so many keys: a page holds a few more than were expected.
const PART: usize = PAGE * 9 / 10;
/// What is asked for where a range probably is at its end, which only its next key tells.
const FEW: usize = 10;
/// Requests side by side. 40 pages of 0.1 s each are more keys a second than the kernel takes.
const REQUESTS: usize = 40;
/// Pages beyond the reader, of some 200 KiB each; twice as many where what comes first turned out to be
/// more than was thought.
const AHEAD: usize = 64;
/// Ranges that come first.
const URGENT: usize = 4;

/// A page in terms of the directory.
#[derive(Debug)]
pub(super) struct Listed {
    /// Keys in order, files with what is told of them, directories with their final `/`.
    pub(super) keys: Vec<(String, Option<ObjectMeta>)>,
    /// Where it ends in key space behind the directory's prefix.
    pub(super) end: End,
    pub(super) asked: Instant,
}

/// The rest of a directory, being listed.
#[derive(Debug)]
pub(super) struct Ranges {
    s3: Arc<S3>,
    prefix: Arc<str>,
    ranges: VecDeque<Range>,
    next_id: u64,
    /// Pages and splits under way; dropped with this.
    tasks: JoinSet<Answer>,
    shape: Shape,
    pages: usize,
}

#[derive(Debug)]
struct Range {
    id: u64,
    /// The last place that is not in it, or that was listed; empty at the beginning.
    base: String,
    /// The first place in it, while it is known and nothing was listed.
    first: Option<String>,
    /// The last place that may be in it; none if that is the directory's.
    end: Option<String>,
    /// No place beyond this was found.
    limit: Option<String>,
    token: Option<String>,
    /// Keys listed so far.
    listed: usize,
    /// How many keys were asked for last.
    asked_for: usize,
    ready: VecDeque<Listed>,
    is_listing: bool,
    /// Set when the reader has come to it.
    awaited: Arc<Awaited>,
    is_splitting: bool,
    /// The base at which a split was tried: not again, before there is something new.
    tried: Option<String>,
    is_complete: bool,
    /// A page was asked for ahead of its turn, and could not be had. That is no error, but worth another request
    /// when its turn has come.
    is_put_off: bool,
    failed: Option<Error>,
}

/// What a task brings: of which range, and what.
#[derive(Debug)]
enum Answer {
    Page(u64, Request, Instant, Result<Page, Error>),
    /// Bounds in order, each with the first place behind it, if it is known that there is one.
    Split(u64, Vec<Bound>),
}

#[derive(Debug)]
struct Bound {
    at: String,
    /// The outer option is whether it was asked.
    first: Option<Option<String>>,
}

impl Ranges {
    /// What lies behind `after`, which is empty or a place of the directory. Where it lies in a common prefix, that
    /// prefix comes first.
    pub(super) fn new(s3: Arc<S3>, prefix: Arc<str>, after: String) -> Self {
        let mut ranges = Self {
            s3,
            prefix,
            ranges: VecDeque::new(),
            next_id: 0,
            tasks: JoinSet::new(),
            shape: Shape::default(),
            pages: 0,
        };
        let range = ranges.range(after, None, None);
        ranges.ranges.push_back(range);
        ranges
    }

    fn range(&mut self, base: String, end: Option<String>, limit: Option<String>) -> Range {
        self.next_id += 1;
        Range {
            id: self.next_id,
            base,
            first: None,
            end,
            limit,
            token: None,
            listed: 0,
            asked_for: PAGE,
            ready: VecDeque::new(),
            is_listing: false,
            awaited: Arc::default(),
            is_splitting: false,
            tried: None,
            is_complete: false,
            is_put_off: false,
            failed: None,
        }
    }

    /// The next page in order. To be called until a page has no end. After an error the same page is
    /// asked for again. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self, request: &Request) -> Result<Listed, Error> {
        loop {
            while let Some(first) = self.ranges.front_mut() {
                if let Some(listed) = first.ready.pop_front() {
                    self.spawn(request);
                    return Ok(listed);
                }
                if let Some(error) = first.failed.take() {
                    return Err(error);
                }
                if !first.is_complete {
                    first.is_put_off = false;
                    first.awaited.set();
                    break;
                }
                self.ranges.pop_front();
            }
            self.spawn(request);
            match self.tasks.join_next().await {
                Some(Ok(Answer::Page(id, asked_by, asked, page))) => {
                    // What an earlier call asked for may have failed long ago, and nobody has waited for it.
                    let is_waited_for =
                        asked_by.class == Class::Demand && asked_by.deadline == request.deadline;
                    self.page(id, is_waited_for, asked, page)?;
                }
                Some(Ok(Answer::Split(id, bounds))) => self.split(id, bounds),
                // A panic of a task, or nothing to wait for: a defect of the program.
                Some(Err(_)) | None => {
                    return Err(Error::Protocol("a listing that broke off".to_owned()));
                }
            }
        }
    }

    /// Starts what can go side by side: the pages that come first, then splits of what comes first.
    fn spawn(&mut self, request: &Request) {
        let pages = |range: &Range| range.ready.len() + usize::from(range.is_listing);
        let mut all: usize = self.ranges.iter().map(pages).sum();
        // Pages that wait far ahead must not keep those from coming that are due before them.
        let mut before = 0;
        for index in 0..self.ranges.len() {
            let enough = self.tasks.len() >= REQUESTS || before >= AHEAD || all >= 2 * AHEAD;
            // The reader waits for the first.
            if index > 0 && enough {
                break;
            }
            let range = &mut self.ranges[index];
            let is_due = !range.is_put_off && range.failed.is_none();
            if !range.is_complete && !range.is_listing && is_due {
                range.is_listing = true;
                let end = range.end.as_deref();
                let is_at_end = range.listed >= self.shape.expected(&range.base, end);
                range.asked_for = match range.asked_for {
                    PAGE if is_at_end => FEW,
                    _ => PAGE,
                };
                all += 1;
                let request = if index == 0 {
                    request.clone()
                } else {
                    request.as_prefetch().until_awaited(&range.awaited, false)
                };
                let (s3, prefix) = (Arc::clone(&self.s3), Arc::clone(&self.prefix));
                let from = (range.base.clone(), range.token.clone());
                let page = page(s3, prefix, from, range.asked_for, request.clone());
                let id = range.id;
                self.tasks.spawn(async move {
                    let asked = Instant::now();
                    Answer::Page(id, request, asked, page.await)
                });
            }
            before += pages(&self.ranges[index]);
        }
        if self.pages < 2 {
            return;
        }
        for index in 0..self.ranges.len() {
            // What comes first is split even so: all the rest waits for it.
            if index >= URGENT && self.tasks.len() >= REQUESTS {
                return;
            }
            self.spawn_split(index, request);
        }
    }

    fn spawn_split(&mut self, index: usize, request: &Request) {
        let range = &mut self.ranges[index];
        let end = range.end.as_deref().or(range.limit.as_deref());
        let base = range.first.as_ref().unwrap_or(&range.base);
        if range.is_complete
            || range.is_splitting
            || range.tried.as_ref() == Some(base)
            || self.shape.expected(base, end) < 2 * PART
        {
            return;
        }
        let candidates = self.shape.candidates(base, end, PART);
        range.tried = Some(base.clone());
        if candidates.is_empty() {
            return;
        }
        range.is_splitting = true;
        let (id, request) = (range.id, request.as_prefetch());
        let asked = candidates.into_iter().map(|one| {
            let (s3, prefix) = (Arc::clone(&self.s3), Arc::clone(&self.prefix));
            let request = request.clone();
            async move {
                let first = match one.is_likely {
                    true => None,
                    false => Some(first_behind(&s3, &prefix, &one.at, &request).await.ok()?),
                };
                let at = one.at;
                Some(Bound { at, first })
            }
        });
        let asked = futures_util::future::join_all(asked.collect::<Vec<_>>());
        self.tasks.spawn(async move {
            // What failed is no bound.
            let bounds = asked.await.into_iter().flatten().collect();
            Answer::Split(id, bounds)
        });
    }

    fn page(
        &mut self,
        id: u64,
        is_waited_for: bool,
        asked: Instant,
        page: Result<Page, Error>,
    ) -> Result<(), Error> {
        let Some(index) = self.ranges.iter().position(|range| range.id == id) else {
            return Ok(());
        };
        let range = &mut self.ranges[index];
        range.is_listing = false;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                match is_waited_for {
                    true => range.failed = Some(error),
                    false => range.is_put_off = true,
                }
                return Ok(());
            }
        };
        self.pages += 1;
        let behind = self.prefix.len();
        let next = page.next_token.clone();
        let last = page.last().map(|last| last[behind..].to_owned());
        // The directory's own marker is behind nothing, and may be all of the first page.
        let goes_on = last.as_ref().is_some_and(|last| {
            *last > range.base || (range.token.is_none() && range.base.is_empty())
        });
        if next.is_some() && !goes_on {
            return Err(Error::Protocol("a list that does not go on".to_owned()));
        }
        let passed = |bound: &str| last.as_deref().is_some_and(|last| last >= bound);
        let end = range.end.clone();
        range.is_complete = next.is_none() || end.as_deref().is_some_and(passed);
        let mut keys = keys_of(page);
        if let Some(end) = &end {
            keys.truncate(keys.partition_point(|(key, _)| key[behind..] <= **end));
        }
        range.listed += keys.len();
        self.shape.learn(keys.iter().map(|(key, _)| &key[behind..]));
        range.token = next;
        let listed_to = match (&last, range.is_complete) {
            (Some(last), false) => {
                range.base.clone_from(last);
                range.first = None;
                Some(just_behind(last))
            }
            _ => end.as_deref().map(just_behind),
        };
        range.ready.push_back(Listed {
            keys,
            end: listed_to.map(Vec::into_boxed_slice),
            asked,
        });
        Ok(())
    }

    /// Splits a range at those of `bounds` that lie in what is left of it and part keys from keys.
    fn split(&mut self, id: u64, mut bounds: Vec<Bound>) {
        let Some(index) = self.ranges.iter().position(|range| range.id == id) else {
            return;
        };
        for first in bounds
            .iter()
            .filter_map(|bound| bound.first.as_ref()?.as_ref())
        {
            self.shape.note(first, 0);
        }
        let range = &mut self.ranges[index];
        range.is_splitting = false;
        if range.is_complete {
            return;
        }
        let within = |at: &str| range.end.as_deref().is_none_or(|end| at < end);
        bounds.retain(|bound| bound.at > range.base && within(&bound.at));
        let nothing = bounds.iter().find(|bound| bound.first == Some(None));
        let limit = nothing.map(|bound| bound.at.clone()).or(range.limit.take());
        // A bound with nothing between it and the next one parts nothing.
        let mut parting: Vec<Bound> = Vec::new();
        for bound in bounds.into_iter().rev() {
            let end = parting.last().map(|next| &next.at).or(range.end.as_ref());
            let parts = match &bound.first {
                None => limit.as_ref().is_none_or(|limit| bound.at < *limit),
                Some(None) => false,
                Some(Some(first)) => end.is_none_or(|end| first <= end),
            };
            if parts {
                parting.push(bound);
            }
        }
        let Some(last) = parting.last() else {
            range.limit = limit;
            return;
        };
        // Another range from now on.
        range.tried = None;
        let mut end = range.end.replace(last.at.clone());
        let mut limit = limit.filter(|_| end.is_none());
        for bound in parting {
            let mut behind = self.range(bound.at.clone(), end.replace(bound.at), limit.take());
            behind.first = bound.first.flatten();
            self.ranges.insert(index + 1, behind);
        }
    }
}

/// One page of a directory: by its token, or behind the place `after`, which is empty at its start.
async fn page(
    s3: Arc<S3>,
    prefix: Arc<str>,
    (after, token): (String, Option<String>),
    max_keys: usize,
    request: Request,
) -> Result<Page, Error> {
    let after_key = format!("{prefix}{after}");
    let from = match &token {
        Some(token) => ListFrom::Token(token),
        None if after.is_empty() => ListFrom::Start,
        None => ListFrom::After(&after_key),
    };
    let query = ListQuery {
        prefix: &prefix,
        delimited: true,
        from,
        max_keys: u16::try_from(max_keys).unwrap_or(1),
    };
    s3.list(query, &request).await
}

/// The first place behind `at`, if there is one.
async fn first_behind(
    s3: &S3,
    prefix: &str,
    at: &str,
    request: &Request,
) -> Result<Option<String>, Error> {
    let query = ListQuery {
        prefix,
        delimited: true,
        from: ListFrom::After(&format!("{prefix}{at}")),
        max_keys: 1,
    };
    let page = s3.list(query, request).await?;
    Ok(page.last().map(|key| key[prefix.len()..].to_owned()))
}

/// Objects and common prefixes of a page in one order.
pub(super) fn keys_of(page: Page) -> Vec<(String, Option<ObjectMeta>)> {
    let objects = page.objects.into_iter();
    let objects = objects.map(|object| (object.key, Some(object.meta)));
    let prefixes = page.prefixes.into_iter().map(|prefix| (prefix, None));
    let mut keys: Vec<_> = objects.chain(prefixes).collect();
    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    keys
}
