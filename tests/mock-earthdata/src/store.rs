//! The buckets, and ListObjectsV2 over them.
//!
//! Objects lie in an ordered map of their keys. Rust orders strings by their UTF-8 bytes, and so does S3 list keys; the
//! order of UTF-8 bytes is that of the code points, which makes the successor of a prefix a string again. A page is a
//! walk along the map that jumps over a common prefix in one seek, so it costs its own length, at any size of bucket.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::content::{Content, Object};
use crate::settings::{Access, Bucket, ListAccess};

/// All buckets.
#[derive(Debug, Default)]
pub(crate) struct Store {
    buckets: BTreeMap<String, Holding>,
    /// Counts the changes made while the world runs. 0 for all that it began with, so that their ETags are the same in
    /// the next world of the same settings.
    version: u64,
}

/// One bucket.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    objects: BTreeMap<String, Object>,
    access: Access,
    page: Option<usize>,
}

impl Store {
    pub(crate) fn new(buckets: Vec<Bucket>) -> io::Result<Self> {
        let now = SystemTime::now();
        let mut store = Self::default();
        for bucket in buckets {
            let objects = bucket
                .objects
                .into_iter()
                .map(|(key, content)| {
                    let object = Object::new(&key, content, 0, now)?;
                    Ok((key, object))
                })
                .collect::<io::Result<BTreeMap<_, _>>>()?;
            let holding = Holding {
                objects,
                access: bucket.access,
                page: bucket.page,
            };
            store.buckets.insert(bucket.name, holding);
        }
        Ok(store)
    }

    /// Counts the changes of objects.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn bucket(&self, name: &str) -> Option<&Holding> {
        self.buckets.get(name)
    }

    /// Puts a new version and returns its ETag without quotes. The bucket is made if it is not there.
    pub(crate) fn put(&mut self, bucket: &str, key: &str, content: Content) -> io::Result<String> {
        self.version += 1;
        let object = Object::new(key, content, self.version, SystemTime::now())?;
        let etag = object.etag();
        let holding = self.buckets.entry(bucket.to_owned()).or_default();
        holding.objects.insert(key.to_owned(), object);
        Ok(etag)
    }

    /// True if the object was there.
    pub(crate) fn remove(&mut self, bucket: &str, key: &str) -> bool {
        self.version += 1;
        self.buckets
            .get_mut(bucket)
            .is_some_and(|holding| holding.objects.remove(key).is_some())
    }

    /// True if the object is there: it is in GLACIER from now on.
    pub(crate) fn archive(&mut self, bucket: &str, key: &str) -> bool {
        self.version += 1;
        let object = self
            .buckets
            .get_mut(bucket)
            .and_then(|holding| holding.objects.get_mut(key));
        match object {
            Some(object) => {
                object.archived = true;
                true
            }
            None => false,
        }
    }

    pub(crate) fn set_access(&mut self, bucket: &str, access: Access) {
        self.version += 1;
        self.buckets.entry(bucket.to_owned()).or_default().access = access;
    }
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// At the first key with the prefix.
    Nothing,
    /// Behind this key, which need not exist.
    Key(String),
    /// Behind every key that begins with this.
    Prefix(String),
    /// There, by a token that is another each time.
    Again(Box<After>),
}

impl After {
    /// As an opaque continuation token.
    pub(crate) fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.text())
    }

    fn text(&self) -> String {
        match self {
            Self::Nothing => "n".to_owned(),
            Self::Key(key) => format!("k{key}"),
            Self::Prefix(prefix) => format!("p{prefix}"),
            Self::Again(place) => format!("a{:016x}{}", fastrand::u64(..), place.text()),
        }
    }

    /// None if the token is not one of ours.
    pub(crate) fn from_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        Self::from_text(&text)
    }

    fn from_text(text: &str) -> Option<Self> {
        match text.split_at_checked(1)? {
            ("a", again) => Self::from_text(again.get(16..)?),
            ("n", "") => Some(Self::Nothing),
            ("k", key) => Some(Self::Key(key.to_owned())),
            ("p", prefix) => Some(Self::Prefix(prefix.to_owned())),
            _ => None,
        }
    }
}

/// One page asked of a listing.
#[derive(Debug)]
pub(crate) struct PageRequest<'a> {
    pub(crate) prefix: &'a str,
    /// Not empty.
    pub(crate) delimiter: Option<&'a str>,
    pub(crate) after: After,
    /// At most this many keys and common prefixes together.
    pub(crate) max: usize,
}

/// One page of a listing, each part in key order.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, Object)>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<After>,
}

impl Page {
    fn len(&self) -> usize {
        self.objects.len() + self.prefixes.len()
    }
}

impl Holding {
    pub(crate) fn object(&self, key: &str) -> Option<&Object> {
        self.objects.get(key)
    }

    pub(crate) fn may_get(&self) -> bool {
        self.access.get
    }

    pub(crate) fn may_list(&self, prefix: &str) -> bool {
        match &self.access.list {
            ListAccess::Everywhere => true,
            ListAccess::Below(roots) => roots.iter().any(|root| prefix.starts_with(root.as_str())),
            ListAccess::Nowhere => false,
        }
    }

    /// May a missing key be told from a forbidden one? S3 does so only for those who may list the whole bucket.
    pub(crate) fn tells_missing(&self) -> bool {
        self.access.list == ListAccess::Everywhere
    }

    pub(crate) fn page(&self, request: &PageRequest<'_>) -> Page {
        let mut page = Page::default();
        let PageRequest { prefix, max, .. } = *request;
        // S3 answers max-keys=0 with an empty page that claims to be the last.
        if max == 0 {
            return page;
        }
        let max = self.page.map_or(max, |page| page.clamp(1, max));
        let Some(mut from) = first(prefix, &request.after) else {
            return page;
        };
        let mut last = request.after.clone();
        'seek: loop {
            let range = (from.as_ref().map(String::as_str), Bound::Unbounded);
            for (key, object) in self.objects.range::<str, _>(range) {
                let Some(rest) = key.strip_prefix(prefix) else {
                    return page;
                };
                if page.len() == max {
                    page.next = Some(last);
                    return page;
                }
                let cut = request
                    .delimiter
                    .and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len()));
                match cut {
                    None => {
                        last = After::Key(key.clone());
                        page.objects.push((key.clone(), object.clone()));
                    }
                    Some(cut) => {
                        let common = key[..prefix.len() + cut].to_owned();
                        last = After::Prefix(common.clone());
                        let behind = successor(&common);
                        page.prefixes.push(common);
                        match behind {
                            Some(behind) => from = Bound::Included(behind),
                            None => return page,
                        }
                        continue 'seek;
                    }
                }
            }
            return page;
        }
    }
}

/// The lower bound of a page: the first place that is both within the prefix and behind `after`. None if nothing can be.
fn first(prefix: &str, after: &After) -> Option<Bound<String>> {
    let behind = match after {
        After::Nothing => return Some(Bound::Included(prefix.to_owned())),
        After::Again(place) => return first(prefix, place),
        After::Key(key) => Bound::Excluded(key.clone()),
        After::Prefix(common) => Bound::Included(successor(common)?),
    };
    Some(match &behind {
        Bound::Excluded(key) | Bound::Included(key) if key.as_str() < prefix => {
            Bound::Included(prefix.to_owned())
        }
        _ => behind,
    })
}

/// The least string that is greater than every string with this prefix; None if there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The surrogates between U+D7FF and U+E000 are no characters.
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}
