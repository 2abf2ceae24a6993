//! Names that the user supplies, for buckets that S3 does not list (`--keys FILE`).
//!
//! The list says which names there are, not what stands behind them: size and version of a file come
//! from HEAD. It adds to what can be found by name, and takes nothing away: a key that is not in it can
//! be read all the same.

use super::names::is_sayable;
use crate::sync::Arc;

/// Keys of one bucket, below the prefix that is mounted.
#[derive(Clone, Debug, Default)]
pub struct KeyList {
    /// In the order of their bytes, each once.
    keys: Arc<[Box<str>]>,
    left_out: usize,
}

impl KeyList {
    /// Reads a list of keys and `s3://` URLs, one a line, of which those of `bucket` below `root` count.
    /// Blank lines do not, nor comments, which begin with `#`, nor does white space around a line.
    ///
    /// # Errors
    /// What is wrong with it, for the user: a line that is another kind of URL, or no key that counts.
    pub fn parse(text: &str, bucket: &str, root: &str) -> Result<Self, String> {
        let mut keys: Vec<Box<str>> = Vec::new();
        let mut left_out = 0;
        let lines = text.trim_start_matches('\u{FEFF}').lines().map(str::trim);
        for (number, line) in (1..).zip(lines) {
            if line.starts_with('#') {
                continue;
            }
            let key = match line.split_once("://") {
                Some(("s3", rest)) => {
                    let of_bucket = rest.split_once('/').filter(|(name, _)| *name == bucket);
                    of_bucket.map(|(_, key)| key)
                }
                Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                    return Err(format!(
                        "line {number} is a URL of {scheme}, and keys or s3:// URLs are needed"
                    ));
                }
                _ => Some(line),
            };
            match key {
                Some("") => {}
                Some(key) if can_be_named(key, root) => keys.push(key.into()),
                _ => left_out += 1,
            }
        }
        if keys.is_empty() {
            return Err(format!("it has no key of s3://{bucket}/{root}"));
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Self {
            keys: keys.into(),
            left_out,
        })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many lines are of other buckets, outside the prefix, or keys that no path can name.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The first key that is not before `at`.
    fn position(&self, at: &[u8]) -> usize {
        self.keys.partition_point(|key| key.as_bytes() < at)
    }

    /// Whether a key begins with `prefix`.
    pub(super) fn has_below(&self, prefix: &str) -> bool {
        let first = self.keys.get(self.position(prefix.as_bytes()));
        first.is_some_and(|key| key.starts_with(prefix))
    }

    /// Whether this is one of the keys.
    pub(super) fn holds(&self, key: &str) -> bool {
        let first = self.keys.get(self.position(key.as_bytes()));
        first.is_some_and(|found| **found == *key)
    }

    /// The places in the directory `prefix` from the place `from` on, in order: files, and directories
    /// with their final `/`.
    pub(super) fn places(&self, prefix: &str, from: &[u8]) -> impl Iterator<Item = &str> {
        let behind = prefix.len();
        let mut at = self.position(&[prefix.as_bytes(), from].concat());
        let (prefix, from) = (prefix.to_owned(), from.to_owned());
        let all = std::iter::from_fn(move || {
            let key = self.keys.get(at).filter(|key| key.starts_with(&prefix))?;
            // Nothing, where the key is the directory's own marker.
            let place = key[behind..]
                .split_inclusive('/')
                .next()
                .unwrap_or_default();
            at += 1;
            if place.ends_with('/') {
                let whole = &key[..behind + place.len()];
                at += self.keys[at..].partition_point(|key| key.starts_with(whole));
            }
            Some(place)
        });
        // The first key behind `from` may lie in a directory that begins before.
        all.filter(move |place| !place.is_empty() && place.as_bytes() >= from.as_slice())
    }
}

/// Whether the key lies below `root`, and a path can say it.
fn can_be_named(key: &str, root: &str) -> bool {
    let path = key
        .strip_prefix(root)
        .map(|path| path.strip_suffix('/').unwrap_or(path));
    path.is_some_and(|path| path.split('/').all(is_sayable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str, root: &str) -> KeyList {
        KeyList::parse(text, "bucket", root).expect("keys")
    }

    fn places(list: &KeyList, prefix: &str, from: &str) -> Vec<String> {
        let places = list.places(prefix, from.as_bytes());
        places.map(str::to_owned).collect()
    }

    #[test]
    fn keys_and_urls_make_a_tree() {
        let text = "\u{FEFF}s3://bucket/a/x.h5\r\n\n  a/b/y.h5 \na/b/z.h5\na-1\na.nc\ns3://bucket/a/x.h5\nm/\n";
        let list = list(text, "");
        assert_eq!((list.len(), list.left_out()), (6, 0));
        assert_eq!(places(&list, "", ""), ["a-1", "a.nc", "a/", "m/"]);
        assert_eq!(places(&list, "", "a."), ["a.nc", "a/", "m/"]);
        assert_eq!(places(&list, "", "a/\0"), ["m/"]);
        assert_eq!(places(&list, "a/", ""), ["b/", "x.h5"]);
        assert_eq!(places(&list, "a/b/", ""), ["y.h5", "z.h5"]);
        assert!(places(&list, "m/", "").is_empty() && places(&list, "n/", "").is_empty());
        assert!(list.has_below("a/") && list.has_below("m/") && !list.has_below("a.nc/"));
        assert!(list.holds("a.nc") && !list.holds("a/") && !list.holds("zz"));
    }

    #[test]
    fn comments_are_no_keys_and_a_key_like_one_is_written_as_a_url() {
        let list = list("# https://search/of?x\n  #a\ns3://bucket/#a\nb#c\n", "");
        assert_eq!((list.len(), list.left_out()), (2, 0));
        assert_eq!(places(&list, "", ""), ["#a", "b#c"]);
    }

    #[test]
    fn what_does_not_count_is_counted() {
        let text = "s3://other/d/x\ns3://bucket/e/x\nd/a//b\nd/../x\n/d/x\nd/x\ns3://bucket\n";
        let list = list(text, "d/");
        assert_eq!((list.len(), list.left_out()), (1, 6));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let refused = |text| KeyList::parse(text, "bucket", "d/").expect_err("refused");
        assert!(refused("d/x\nhttps://host/d/x\n").contains("line 2 is a URL of https"));
        for nothing in ["", "\n\n", "e/x\n"] {
            assert!(refused(nothing).contains("no key of s3://bucket/d/"));
        }
    }
}
