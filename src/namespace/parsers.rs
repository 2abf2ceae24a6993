//! What holds whatever keys a bucket has, and whatever pages its server sends.
//!
//! Pages are written down as [`crate::s3::pretended`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::guess::before_name;
use super::key_space::{Span, just_behind};
use super::keys::KeyList;
use super::listing::before;
use super::names::is_sayable;
use super::ranges;
use super::shape::Shape;
use super::{Dir, Namespace, Node, Way};
use crate::request::Request;
use crate::s3::parsers::passes;
use crate::s3::pretended::{
    client_of, honest, impatient, in_turn, keys_of, page_of, query, query_of, run, true_answer,
    xml_of,
};
use crate::s3::{Error, ListFrom, ListQuery, Page, S3};
use crate::sync::{Arc, lock};

const HOUR: Duration = Duration::from_secs(3600);
/// Enough for all that one input holds.
const MEMORY: u64 = 64 << 20;

/// Up to the last `/`.
fn directory_of(path: &str) -> &str {
    &path[..path.rfind('/').map_or(0, |slash| slash + 1)]
}

fn dir(prefix: &str) -> Dir {
    Dir {
        number: std::num::NonZeroU64::MAX,
        prefix: Arc::from(prefix),
    }
}

/// What a bucket has: the directories on the way to each key, and the names in them that a path can say.
fn tree<'a>(
    keys: &'a BTreeSet<String>,
    root: &'a str,
) -> BTreeMap<&'a str, BTreeMap<&'a str, bool>> {
    let mut tree: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::from([(root, BTreeMap::new())]);
    for key in keys.iter().filter(|key| key.starts_with(root)) {
        let mut at = root.len();
        while let Some((name, is_directory)) = match key[at..].split_once('/') {
            Some((name, _)) => Some((name, true)),
            None => Some((&key[at..], false)).filter(|(name, _)| !name.is_empty()),
        } {
            if !is_sayable(name) {
                break;
            }
            // A directory hides a file.
            *tree.entry(&key[..at]).or_default().entry(name).or_default() |= is_directory;
            if !is_directory {
                break;
            }
            at += name.len() + 1;
            tree.entry(&key[..at]).or_default();
        }
    }
    tree
}

/// Names to ask for: those that are there, and others beside them.
fn probes(names: &BTreeMap<&str, bool>) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = names.keys().map(|name| (*name).to_owned()).collect();
    for name in names.keys() {
        all.insert(format!("{name}.aux.xml"));
        let mut shorter = name.chars();
        shorter.next_back();
        all.insert(shorter.as_str().to_owned());
    }
    all.insert("zz".to_owned());
    all.retain(|name| is_sayable(name));
    all
}

pub(crate) fn names(text: &str) {
    let (delimited, prefix, after) = query_of(text);
    let root = directory_of(&prefix);
    // No listing of a directory begins inside a common prefix, which would come again.
    let place = match delimited {
        true => after.split('/').next().unwrap_or_default(),
        false => &after,
    };
    let after = match place {
        "" => String::new(),
        place => format!("{root}{place}"),
    };
    let keys: BTreeSet<String> = keys_of(text, "o").chain(keys_of(text, "p")).collect();
    let s3 = client_of(|_| String::new());
    let query = query(delimited, root, &after);
    for most in [1, 3, 1000] {
        let page = honest(&keys, &query, most);
        let namespace = learned(&s3, &query, page.clone());
        check_facts(&namespace, &keys, root);
        let seen = page.objects.iter().map(|object| object.key.as_str());
        for key in seen.filter(|key| key[root.len()..].split('/').all(is_sayable)) {
            let (prefix, name) = super::split(key);
            let file = namespace.place(&dir(prefix), name, |_| true).file;
            assert!(
                matches!(file, Some((Some(Node::File(_)), _))),
                "{key:?}: {file:?}"
            );
        }
    }
    let page = page_of(text);
    if passes(&page, &query) {
        learned(&s3, &query, page);
    }
    places_to_ask_behind(root, &keys);
}

/// A namespace that knows just the answer to `query`, as a listing or a walk learns it.
fn learned(s3: &Arc<S3>, query: &ListQuery<'_>, page: Page) -> Arc<Namespace> {
    let namespace = Namespace::new(
        Arc::clone(s3),
        query.prefix,
        KeyList::default(),
        HOUR,
        MEMORY,
    );
    let behind = query.prefix.len();
    let start = match query.from {
        ListFrom::After(after) => just_behind(after),
        _ => Vec::new(),
    };
    if query.delimited {
        let last = page.breaks_off_at();
        let span = Span {
            start: start.get(behind..).unwrap_or_default().to_vec(),
            end: last.map(|last| just_behind(&last[behind..])),
        };
        let mut keys = ranges::keys_of(page);
        keys.retain(|(key, _)| key.as_bytes()[behind..] >= *span.start);
        namespace.learn_keys(&Arc::from(query.prefix), span, Instant::now(), keys);
    } else {
        namespace.learn_tree(query.prefix, &start, page, Instant::now());
    }
    check_sound(&namespace);
    Arc::new(namespace)
}

fn check_sound(namespace: &Namespace) {
    let directories = lock(&namespace.directories);
    let mut bytes = 0;
    for (_, known) in &directories.known {
        known.check_sound();
        bytes += known.bytes();
    }
    assert_eq!(bytes, directories.bytes);
    assert!(bytes <= namespace.memory);
}

/// What is said to be known is true.
fn check_facts(namespace: &Namespace, keys: &BTreeSet<String>, root: &str) {
    for (prefix, names) in tree(keys, root) {
        for name in probes(&names) {
            let place = namespace.place(&dir(prefix), &name, |_| true);
            let path = format!("{prefix}{name}");
            if let Some((file, _)) = place.file {
                assert_eq!(file.is_some(), keys.contains(&path), "the file {path:?}");
            }
            let below = format!("{path}/");
            if let Some((directory, _)) = place.directory {
                let exists = keys.range(below.clone()..).next();
                let exists = exists.is_some_and(|key| key.starts_with(&below));
                assert_eq!(directory.is_some(), exists, "the directory {below:?}");
            }
        }
    }
}

/// Where listings begin and are split, for all places of a directory.
fn places_to_ask_behind(root: &str, keys: &BTreeSet<String>) {
    let keys = keys.iter().filter(|key| key.starts_with(root));
    let places = keys.map(|key| &key[root.len()..]).map(|place| {
        let end = place.find('/').map_or(place.len(), |slash| slash + 1);
        &place[..end]
    });
    let places: BTreeSet<&str> = places.filter(|place| !place.is_empty()).take(8).collect();
    let mut shape = Shape::default();
    shape.learn(places.iter().copied());
    for place in &places {
        for from in [place.as_bytes().to_vec(), just_behind(place)] {
            assert!(before(&from).as_bytes() < &*from, "{from:?}");
        }
        let name = place.trim_end_matches('/');
        if is_sayable(name) {
            let after = before_name(&dir(root), name);
            let after = after.strip_prefix(root).expect("in the directory");
            assert!(after < name && !after.contains('/'), "{after:?}, {name:?}");
        }
        for end in places.iter().copied().map(Some).chain([None]) {
            shape.expected(place, end);
            let candidates = shape.candidates(place, end, 1);
            assert!(candidates.is_sorted_by(|a, b| a.at < b.at));
            for one in candidates {
                assert!(
                    *one.at > **place && end.is_none_or(|end| *one.at < *end),
                    "{one:?}"
                );
                assert!(!one.at.contains('/'), "{one:?}");
            }
        }
    }
}

/// The prefix that is mounted comes first, then a file of keys.
pub(crate) fn key_list(text: &str) {
    let (root, text) = text.split_once('\n').unwrap_or(("", text));
    let root = directory_of(root);
    let list = match KeyList::parse(text, "bucket", root) {
        Ok(list) => list,
        Err(message) => {
            assert!(
                !message.is_empty() && !message.contains("hunter2"),
                "{message}"
            );
            return;
        }
    };
    assert!(!list.is_empty() && list.len() + list.left_out() <= text.lines().count());
    // All that it holds, found by way of its places.
    let mut keys: BTreeSet<String> = BTreeSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(prefix) = directories.pop() {
        let places: Vec<&str> = list.places(&prefix, b"").collect();
        assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
        for (count, place) in places.iter().enumerate() {
            assert!(
                list.places(&prefix, place.as_bytes())
                    .eq(places[count..].iter().copied())
            );
            assert!(is_sayable(place.trim_end_matches('/')), "{place:?}");
            let path = format!("{prefix}{place}");
            match place.ends_with('/') {
                true => directories.push(path),
                false => assert!(list.holds(&path) && keys.insert(path)),
            }
        }
        assert!(list.has_below(&prefix));
        if list.holds(&prefix) {
            keys.insert(prefix);
        }
    }
    assert_eq!(keys.len(), list.len());
    let written: String = keys
        .iter()
        .map(|key| format!("s3://bucket/{key}\n"))
        .collect();
    let again = KeyList::parse(&written, "bucket", root).expect("what was written");
    assert!(again.len() == list.len() && keys.iter().all(|key| again.holds(key)));
}

/// `d` on the first line is for a server that tells the truth. Pages of one that does not are parted by
/// empty lines.
pub(crate) fn listing(text: &str) {
    let (is_honest, prefix, after) = query_of(text);
    let root = directory_of(&prefix).to_owned();
    if is_honest {
        let keys: BTreeSet<String> = keys_of(text, "o").filter(|key| !key.is_empty()).collect();
        let most = [1, 2, 3, 1000][after.len() % 4];
        let empty = after.len() / 4 % 3;
        run(true_listing(&root, Arc::new(keys), most, empty));
    } else {
        let pages = text.split("\n\n").map(|page| xml_of(&page_of(page)));
        let s3 = client_of(in_turn(pages.collect()));
        run(false_listing(&root, s3));
    }
}

/// In pages of up to `most` keys, with so many pages before each that have none.
async fn true_listing(root: &str, keys: Arc<BTreeSet<String>>, most: usize, empty: usize) {
    let server = Arc::clone(&keys);
    let s3 = client_of(move |request| true_answer(&server, request, most, empty));
    let request = Request::demand(HOUR);
    let tree = tree(&keys, root);
    for lookups_first in [false, true] {
        let namespace = Arc::new(Namespace::new(
            Arc::clone(&s3),
            root,
            KeyList::default(),
            HOUR,
            MEMORY,
        ));
        for (prefix, names) in &tree {
            let dir = Arc::new(dir(prefix));
            if lookups_first {
                for name in probes(names) {
                    let answer = namespace.lookup(&dir, &name, &request).await;
                    let node = answer.expect("an answer").node;
                    let is_directory = node.map(|node| matches!(node, Node::Directory(_)));
                    assert_eq!(
                        is_directory,
                        names.get(&*name).copied(),
                        "{prefix:?} {name:?}"
                    );
                }
            }
            let listed = list(&namespace, &dir, &request).await.expect("a listing");
            let names: BTreeMap<String, bool> = names
                .iter()
                .map(|(name, is)| ((*name).to_owned(), *is))
                .collect();
            assert_eq!(listed, names, "in {prefix:?}");
        }
        check_sound(&namespace);
        check_facts(&namespace, &keys, root);
        forget_some(&namespace, tree.keys());
        check_facts(&namespace, &keys, root);
    }
}

/// What was replaced while it was read is forgotten, and of nothing else.
fn forget_some<'a>(namespace: &Namespace, prefixes: impl Iterator<Item = &'a &'a str>) {
    for prefix in prefixes {
        let versions = namespace.files_from(prefix, Way::Forward, 3);
        for version in versions
            .iter()
            .filter(|version| version.key.starts_with(prefix))
        {
            let (_, name) = super::split(&version.key);
            namespace.forget_version(version);
            check_sound(namespace);
            assert!(namespace.place(&dir(prefix), name, |_| true).file.is_none());
        }
    }
}

async fn false_listing(root: &str, s3: Arc<S3>) {
    let namespace = Arc::new(Namespace::new(s3, root, KeyList::default(), HOUR, MEMORY));
    let dir = Arc::new(dir(root));
    let listed = list(&namespace, &dir, &impatient()).await;
    check_sound(&namespace);
    for name in listed.unwrap_or_default().into_keys().take(3) {
        assert!(is_sayable(&name) && !name.contains('/'), "{name:?}");
        let _ = namespace.lookup(&dir, &name, &impatient()).await;
        let _ = namespace
            .lookup(&dir, &format!("{name}x"), &impatient())
            .await;
        check_sound(&namespace);
    }
}

/// All names, and whether each is a directory.
async fn list(
    namespace: &Arc<Namespace>,
    dir: &Arc<Dir>,
    request: &Request,
) -> Result<BTreeMap<String, bool>, Error> {
    let mut listing = namespace.list(dir);
    let mut names = BTreeMap::new();
    // A page a name is the most that a true listing takes.
    for _ in 0..2000 {
        let Some(entries) = listing.next(namespace, request).await? else {
            return Ok(names);
        };
        for entry in entries {
            let is_directory = matches!(entry.node, Node::Directory(_));
            let twice = names.insert(entry.name().to_owned(), is_directory);
            assert_eq!(twice, None, "{entry:?} is listed twice");
        }
    }
    panic!("a listing without end");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parsers::soup;
    use crate::s3::parsers::PAGE;

    const KEYS: &[&str] = &[
        "\n",
        "\r\n",
        "s3://bucket/",
        "s3://other/",
        "a/",
        "b",
        "c.h5",
        "/",
        "..",
        " ",
        "\u{feff}",
        "https://",
        "é",
        "x/y/z\n",
    ];

    proptest! {
        #[test]
        fn lists_of_keys_are_trees(text in soup(KEYS)) {
            key_list(&text);
        }

        #[test]
        fn what_is_learned_of_a_page_is_true(text in soup(PAGE)) {
            names(&text);
        }

    }

    proptest! {
        // Each is some dozens of requests.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_listing_is_the_bucket_or_an_error(text in soup(PAGE), pages in "[.]{0,11}") {
            listing(&format!("d  {pages}\no {text}"));
            listing(&format!("u \no {text}"));
        }
    }

    #[test]
    fn a_first_page_of_nothing_but_the_marker_goes_on() {
        // Pages of one key, as the length of the last word says.
        listing("d a/ ....\no a/\no a/b\no a/c/d");
    }
}
