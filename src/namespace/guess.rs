//! Listing around names that are asked for one by one.
//!
//! A program that asks for a second unknown name of a directory will ask for more (the sidecar files of
//! an image, the files of a job in turn). The directory is listed from its beginning, which is all of a
//! small one, and if it is larger, from that name on. Larger ones are listed again from later unknown
//! names on, ever more rarely while nothing that was listed so gets used.

use tokio::time::Instant;

use super::rarely::Rarely;
use super::{Dir, Namespace, PAGE};
use crate::request::Request;
use crate::s3::{Error, ListFrom, ListQuery};
use crate::sync::{Arc, spawn, watch};

/// How a directory's names were asked for.
#[derive(Debug, Default)]
pub(super) struct Habit {
    /// Names that S3 was asked for one by one.
    unknown: u32,
    /// When to list from one of them on.
    pub(super) listings: Rarely,
    /// Closed when the listing under way is over.
    coming: Option<watch::Receiver<()>>,
}

/// The first unknown name says nothing.
const FIRST: u32 = 2;

impl Habit {
    /// Notes an unknown name. Says whether a listing is due, and whether it is the first.
    fn unknown(&mut self) -> Option<bool> {
        self.unknown += 1;
        let is_due = self.unknown >= FIRST && self.listings.is_due();
        is_due.then_some(self.unknown == FIRST)
    }
}

impl Namespace {
    /// Waits for a listing of `dir` that is under way, if it is the first one or such listings get used.
    pub(super) async fn guessed(&self, dir: &Dir) {
        let coming = self.learn_quietly(dir, |known| {
            let is_promising = known.habit.listings.is_used();
            known.habit.coming.clone().filter(|_| is_promising)
        });
        if let Some(mut coming) = coming {
            // Nothing is ever sent: it ends by being closed.
            let _ = coming.changed().await;
        }
    }

    /// Notes that `name` is unknown and about to be asked for; lists around it if that looks useful.
    pub(super) fn guess(self: &Arc<Self>, dir: &Arc<Dir>, name: &str, request: &Request) {
        if self.ttl.is_zero() || self.is_denied(dir) {
            return;
        }
        let (sender, receiver) = watch::channel(());
        let due = self.learn_quietly(dir, |known| {
            let due = known.habit.unknown()?;
            known.habit.coming = Some(receiver);
            Some(due)
        });
        let Some(is_first) = due else { return };
        let (namespace, dir) = (Arc::clone(self), Arc::clone(dir));
        let after = before_name(&dir, name);
        let request = request.as_prefetch();
        spawn(async move {
            let mut waited_for = Some(sender);
            let listed = match is_first {
                true => match namespace.list_some(&dir, None, &request).await {
                    Ok(Some(end)) if end.as_slice() <= &after.as_bytes()[dir.prefix.len()..] => {
                        // A large directory: whoever asks for another name of it is not to wait.
                        waited_for.take();
                        namespace.list_some(&dir, Some(&after), &request).await
                    }
                    other => other,
                },
                false => namespace.list_some(&dir, Some(&after), &request).await,
            };
            if let Err(error) = listed {
                tracing::debug!(directory = &*dir.prefix, "listing ahead: {error}");
            }
            drop(waited_for);
            namespace.learn_quietly(&dir, |known| known.habit.coming = None);
        });
    }

    /// One page of `dir`, from its beginning or behind a key. Returns where it ends in key space, if
    /// that is not the end of the directory.
    async fn list_some(
        &self,
        dir: &Dir,
        after: Option<&str>,
        request: &Request,
    ) -> Result<Option<Vec<u8>>, Error> {
        let asked = Instant::now();
        let query = ListQuery {
            prefix: &dir.prefix,
            delimited: true,
            from: after.map_or(ListFrom::Start, ListFrom::After),
            max_keys: PAGE as u16,
        };
        let page = self.s3.list(query, request).await?;
        let end = self.learn_page(dir, after, page, asked);
        self.learn_quietly(dir, |known| known.habit.listings.asked(asked));
        Ok(end)
    }
}

/// A key behind which `name` lies, and what shares its stem: sidecar files of one image.
pub(super) fn before_name(dir: &Dir, name: &str) -> String {
    let stem = name.split('.').next().unwrap_or_default();
    let mut chars = stem.chars();
    let last = chars.next_back();
    // One character less sorts before all that begins with the stem, and not far before.
    match last.and_then(|c| char::from_u32(u32::from(c).checked_sub(1)?)) {
        Some('/') | None => format!("{}{}", dir.prefix, chars.as_str()),
        Some(before) => format!("{}{}{before}\u{10FFFF}", dir.prefix, chars.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_second_unknown_name_is_listed_around_and_later_ones_ever_more_rarely() {
        let mut habit = Habit::default();
        let mut due = Vec::new();
        for nth in 1..=40 {
            if habit.unknown().is_some() {
                due.push(nth);
                habit.listings.asked(Instant::now());
            }
        }
        assert_eq!(due, [2, 3, 5, 9, 17, 33]);
        habit.listings.used(Instant::now());
        assert_eq!(habit.unknown(), Some(false));
    }
}
