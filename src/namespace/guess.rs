//! Listing around names that are asked for one by one.
//!
//! Along with the first name of a file in a directory of which nothing is known, its first names are asked for, which
//! are all of a small one: of a granule. A program that asks for a second unknown name will ask for more (the sidecar
//! files of an image, the files of a job in turn). The directory is listed from its beginning, and if it is large,
//! from that name on; again from later unknown names on, ever more rarely while nothing that was listed so gets
//! used.

use tokio::time::Instant;

use super::lookup::FIRST_CHILDREN;
use super::names::looks_like_a_file;
use super::rarely::Rarely;
use super::under_way::UnderWay;
use super::{Dir, Namespace, PAGE};
use crate::request::Request;
use crate::s3::{Error, ListFrom, ListQuery};
use crate::sync::{Arc, spawn};

/// How a directory's names were asked for.
#[derive(Debug, Default)]
pub(super) struct Habit {
    /// Names that S3 was asked for one by one.
    unknown: u32,
    /// When to list from one of them on.
    pub(super) listings: Rarely,
    /// One that is the first, or came when such listings got used.
    coming: Option<UnderWay>,
}

/// From where on a directory is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Due {
    /// Its first names.
    Few,
    /// From its beginning, and from the name on if that does not reach it.
    Beginning,
    /// From the name on.
    Here,
}

impl Habit {
    /// Notes an unknown name in a directory, of which nothing is known yet if it is `blank`. Says which listing is due.
    fn unknown(&mut self, blank: bool) -> Option<Due> {
        self.unknown += 1;
        match self.unknown {
            1 => blank.then_some(Due::Few),
            2 => self.listings.is_due().then_some(Due::Beginning),
            _ => self.listings.is_due().then_some(Due::Here),
        }
    }
}

impl Namespace {
    /// Waits for a listing of `dir` that is under way, if it is the first one or such listings get used.
    pub(super) async fn guessed(&self, dir: &Dir) {
        let coming = self.learn_quietly(dir, |known| known.habit.coming.clone());
        if let Some(coming) = coming {
            coming.wait().await;
        }
    }

    /// Notes that `name` is unknown and about to be asked for; lists around it if that looks useful.
    pub(super) fn guess(self: &Arc<Self>, dir: &Arc<Dir>, name: &str, request: &Request) {
        if self.ttl.is_zero() || self.is_denied(dir) {
            return;
        }
        let (sender, under_way) = UnderWay::begin();
        // A directory's own first names come with the answer whether it exists.
        let may_have_few = *dir.prefix != *self.root() && looks_like_a_file(name);
        let due = self.learn_quietly(dir, |known| {
            let is_blank = may_have_few && known.is_blank();
            let due = known.habit.unknown(is_blank)?;
            if known.habit.listings.is_used() {
                known.habit.coming = Some(under_way);
            }
            Some(due)
        });
        let Some(due) = due else { return };
        let (namespace, dir) = (Arc::clone(self), Arc::clone(dir));
        let after = before_name(&dir, name);
        let request = request.as_prefetch();
        spawn(async move {
            let mut waited_for = Some(sender);
            let listed = match due {
                Due::Few => {
                    let asked = Instant::now();
                    namespace
                        .list_some(&dir, None, FIRST_CHILDREN, asked, &request)
                        .await
                }
                Due::Here => namespace.list_around(&dir, Some(&after), &request).await,
                Due::Beginning => match namespace.list_around(&dir, None, &request).await {
                    Ok(Some(end)) if end.as_slice() <= &after.as_bytes()[dir.prefix.len()..] => {
                        // A large directory: whoever asks for another name of it is not to wait.
                        waited_for.take();
                        namespace.list_around(&dir, Some(&after), &request).await
                    }
                    other => other,
                },
            };
            if let Err(error) = listed {
                tracing::debug!(directory = &*dir.prefix, "listing ahead: {error}");
            }
            drop(waited_for);
            namespace.learn_quietly(&dir, |known| {
                known.habit.coming.take_if(|coming| coming.is_over());
            });
        });
    }

    /// One page of `dir`, of which something should get used.
    async fn list_around(
        &self,
        dir: &Dir,
        after: Option<&str>,
        request: &Request,
    ) -> Result<Option<Vec<u8>>, Error> {
        let asked = Instant::now();
        // Also one that fails: it would be due again at once.
        self.learn_quietly(dir, |known| known.habit.listings.asked(asked));
        self.list_some(dir, after, PAGE as u16, asked, request)
            .await
    }

    /// So many names of `dir`, from its beginning or behind a key, `asked` for now. Returns where they end in key space,
    /// if that is not the end of the directory.
    async fn list_some(
        &self,
        dir: &Dir,
        after: Option<&str>,
        max_keys: u16,
        asked: Instant,
        request: &Request,
    ) -> Result<Option<Vec<u8>>, Error> {
        let query = ListQuery {
            prefix: &dir.prefix,
            delimited: true,
            from: after.map_or(ListFrom::Start, ListFrom::After),
            max_keys,
        };
        let page = self.s3.list(query, request).await?;
        Ok(self.learn_page(dir, after, page, asked))
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
            if habit.unknown(true) > Some(Due::Few) {
                due.push(nth);
                habit.listings.asked(Instant::now());
            }
        }
        assert_eq!(due, [2, 3, 5, 9, 17, 33]);
        habit.listings.used(Instant::now());
        assert_eq!(habit.unknown(true), Some(Due::Here));
    }
}
