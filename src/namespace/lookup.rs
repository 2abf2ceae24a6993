//! Asking S3 about one name.

use tokio::time::Instant;

use super::key_space::{Span, just_behind};
use super::known::Place;
use super::names::{is_sayable, looks_like_a_file};
use super::{Dir, Namespace, Node};
use crate::request::Request;
use crate::s3::{Error, ListFrom, ListQuery, Page};

/// What is listed of a directory along with the question whether it exists. HLS and Sentinel-1 granules are
/// directories of some twenty files.
pub(super) const FIRST_CHILDREN: u16 = 32;

impl Namespace {
    /// Asks S3 for what `place` leaves open about `name`, and notes the answers.
    pub(super) async fn ask(
        &self,
        dir: &Dir,
        name: &str,
        place: Place,
        request: &Request,
    ) -> Result<Place, Error> {
        if !self.is_denied(dir) {
            match self.ask_by_listing(dir, name, place.clone(), request).await {
                Err(error) if error.is_denial() => self.note_denied(&dir.prefix),
                answered => return answered,
            }
        }
        if let Some(place) = self.ask_without_listing(dir, name, request).await? {
            return Ok(place);
        }
        let place = self.ask_by_listing(dir, name, place, request).await?;
        self.note_listed(&dir.prefix);
        Ok(place)
    }

    /// The same by two LISTs side by side.
    async fn ask_by_listing(
        &self,
        dir: &Dir,
        name: &str,
        mut place: Place,
        request: &Request,
    ) -> Result<Place, Error> {
        let asked = Instant::now();
        let key = format!("{}{name}", dir.prefix);
        let below = format!("{key}/");
        // Who asks for a directory wants something in it: a small one is known with the same answer.
        let children = match looks_like_a_file(name) {
            true => 1,
            false => FIRST_CHILDREN,
        };
        let first = async |prefix, max_keys, is_known| {
            let query = ListQuery {
                prefix,
                delimited: max_keys > 1,
                from: ListFrom::Start,
                max_keys,
            };
            match is_known {
                true => Ok(None),
                false => self.s3.list(query, request).await.map(Some),
            }
        };
        let file = first(&key, 1, place.file.is_some());
        let directory = first(&below, children, place.directory.is_some());
        let (file, directory) = match tokio::join!(file, directory) {
            (Ok(file), Ok(directory)) => (file, directory),
            // It may be that just this directory is listed. It would hide a file.
            (Err(error), Ok(Some(page))) if error.is_denial() && page.last().is_some() => {
                (None, Some(page))
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        if let Some(page) = file {
            let file = self.learn_first_key(dir, name, page, asked);
            place.file = Some((file, asked));
        }
        if let Some(page) = directory {
            let exists = page.last().is_some();
            let directory = self.learn_directory(dir, name, exists, asked);
            if let Some(Node::Directory(child)) = &directory
                && children > 1
            {
                self.learn_page(child, None, page, asked);
            }
            place.directory = Some((directory, asked));
        }
        Ok(place)
    }

    /// `page` holds the first key that begins with `name`, or nothing if there is none. Returns the
    /// file `name`, if that is the one.
    fn learn_first_key(&self, dir: &Dir, name: &str, page: Page, asked: Instant) -> Option<Node> {
        let Some(found) = page.objects.into_iter().next() else {
            self.learn(&dir.prefix, |known, _| {
                known.learn(Span::below(name), asked, Vec::new());
            });
            return None;
        };
        let behind = &found.key[dir.prefix.len()..];
        // Either a file, or the first key of a directory, which stands for the directory.
        let at = behind.split_inclusive('/').next().unwrap_or_default();
        let span = Span {
            start: name.into(),
            end: Some(just_behind(at)),
        };
        self.learn(&dir.prefix, |known, inodes| {
            let node = match at.strip_suffix('/') {
                None => is_sayable(at).then(|| known.version(inodes, &found.key, found.meta)),
                Some(component) => is_sayable(component).then(|| {
                    let prefix = &found.key[..dir.prefix.len() + at.len()];
                    known.directory(inodes, prefix)
                }),
            };
            known.learn(span, asked, Vec::from_iter(node.clone()));
            node.filter(|_| at == name)
        })
    }

    pub(super) fn learn_directory(
        &self,
        dir: &Dir,
        name: &str,
        exists: bool,
        asked: Instant,
    ) -> Option<Node> {
        let at = format!("{name}/");
        let prefix = format!("{}{at}", dir.prefix);
        self.learn(&dir.prefix, |known, inodes| {
            let node = exists.then(|| known.directory(inodes, &prefix));
            known.learn(Span::below(&at), asked, Vec::from_iter(node.clone()));
            node
        })
    }
}
