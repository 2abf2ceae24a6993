//! The mounted tree against a model of `docs/semantics.md`, with random and hostile keys, while keys
//! are added and removed.
//!
//! The bucket answers with pages of a few keys, so that few keys have as many seams as a large
//! directory. What once failed is kept in `tests/main/model.regressions` and tried first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use mock_earthdata::{Bucket, World};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

use crate::support::{BUCKET, Mount, world_with};

/// A directory as the rules of section 1 make it: names, each a file with its key or a directory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Model {
    files: BTreeMap<String, String>,
    directories: BTreeMap<String, Model>,
}

impl Model {
    fn new<'a>(keys: impl IntoIterator<Item = &'a String>) -> Self {
        let mut root = Self::default();
        for key in keys {
            root.add(key, key);
        }
        root.hide();
        root
    }

    fn add(&mut self, key: &str, rest: &str) {
        match rest.split_once('/') {
            None if can_be_named(rest) => {
                self.files.insert(rest.to_owned(), key.to_owned());
            }
            Some((name, below)) if can_be_named(name) => {
                let directory = self.directories.entry(name.to_owned()).or_default();
                directory.add(key, below);
            }
            _ => {}
        }
    }

    /// A directory hides a file of the same name.
    fn hide(&mut self) {
        self.files
            .retain(|name, _| !self.directories.contains_key(name));
        self.directories.values_mut().for_each(Self::hide);
    }

    /// In the order of keys.
    fn names(&self) -> Vec<String> {
        let directories = self.directories.keys().map(|name| format!("{name}/"));
        let mut places: Vec<_> = self.files.keys().cloned().chain(directories).collect();
        places.sort();
        let name = |place: String| place.trim_end_matches('/').to_owned();
        places.into_iter().map(name).collect()
    }

    /// All paths below, directories before what they hold.
    fn paths(&self, above: &str, all: &mut Vec<(String, Option<String>)>) {
        for (name, key) in &self.files {
            all.push((format!("{above}{name}"), Some(key.clone())));
        }
        for (name, directory) in &self.directories {
            all.push((format!("{above}{name}"), None));
            directory.paths(&format!("{above}{name}/"), all);
        }
    }
}

fn can_be_named(component: &str) -> bool {
    !matches!(component, "" | "." | "..") && !component.contains('\0') && component.len() <= 255
}

/// What an object holds.
fn content(key: &str) -> Vec<u8> {
    format!("the content of {key}").into_bytes()
}

/// Reads all of the mount and compares it.
fn compare(mount: &Mount, path: &str, model: &Model) {
    let entries = fs::read_dir(mount.path(path)).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let names = entries.map(|entry| {
        let name = entry
            .unwrap_or_else(|e| panic!("{path:?}: {e}"))
            .file_name();
        name.into_string().expect("UTF-8")
    });
    let names: Vec<_> = names.collect();
    // A file that a directory may hide comes later.
    let (mut sorted, mut expected) = (names.clone(), model.names());
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected, "in {path:?}");
    let below = |name: &String| match path {
        "" => name.clone(),
        path => format!("{path}/{name}"),
    };
    for (name, key) in &model.files {
        assert_eq!(
            fs::read(mount.path(below(name))).expect("a file"),
            content(key)
        );
    }
    for (name, directory) in &model.directories {
        compare(mount, &below(name), directory);
    }
}

/// Asks for every path, and for some that do not exist, by name.
fn compare_by_name(mount: &Mount, model: &Model, order: usize) {
    let mut paths = Vec::new();
    model.paths("", &mut paths);
    let absent: Vec<_> = paths
        .iter()
        .map(|(path, _)| format!("{path}.aux.xml"))
        .collect();
    let known: BTreeSet<_> = paths.iter().map(|(path, _)| path.clone()).collect();
    let absent = absent.into_iter().filter(|path| !known.contains(path));
    let mut asked: Vec<(String, Option<Option<String>>)> =
        absent.map(|path| (path, None)).collect();
    asked.extend(paths.into_iter().map(|(path, key)| (path, Some(key))));
    let count = asked.len();
    for nth in 0..count {
        // Any order will do, and a different one each time.
        let (path, expected) = &asked[(nth * 7919 + order) % count];
        if path.rsplit('/').next().is_some_and(|name| name.len() > 255) {
            continue;
        }
        let found = fs::symlink_metadata(mount.path(path));
        match (found, expected) {
            (Err(error), None) => {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{path:?}");
            }
            (Ok(found), Some(None)) => assert!(found.is_dir(), "{path:?}"),
            (Ok(found), Some(Some(key))) => {
                assert!(found.is_file(), "{path:?}");
                assert_eq!(found.len(), content(key).len() as u64, "{path:?}");
            }
            (found, expected) => panic!("{path:?}: {found:?} instead of {expected:?}"),
        }
    }
}

fn component() -> impl Strategy<Value = String> {
    let odd = [
        "a",
        "a-",
        "a.",
        "a0",
        "b",
        "A",
        "é",
        "e\u{301}",
        " ",
        "+",
        "%2F",
        "\n",
        "\u{1}",
        "..",
        ".",
        "",
        "a\0b",
        "\u{7f}",
        "日",
        "日本",
        "\u{10FFFF}",
        "~",
        "!",
        "0",
        "00",
        "\u{FFFD}",
    ];
    prop_oneof![
        8 => prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
        3 => (0_u32..40).prop_map(|n| format!("{n:04}.nc")),
        1 => (254_usize..258).prop_map(|len| "x".repeat(len)),
        1 => "[a-c/.]{1,3}".prop_map(|text| text.replace('/', "-")),
    ]
}

fn key() -> impl Strategy<Value = String> {
    (
        prop::collection::vec(component(), 1..4),
        prop::bool::weighted(0.1),
    )
        .prop_filter_map(
            "S3 has no empty key, and none of more than 1,024 bytes",
            |(components, is_marker)| {
                let marker = if is_marker { "/" } else { "" };
                let key = components.join("/") + marker;
                (!key.is_empty() && key.len() <= 1024).then_some(key)
            },
        )
}

/// Keys in the beginning, those that come and go then, and an order in which to ask.
type Case = (BTreeSet<String>, Vec<String>, usize);

fn cases() -> impl Strategy<Value = Case> {
    let keys = prop::collection::btree_set(key(), 0..20);
    // One directory of many, so that its listing has ranges.
    let many = (
        prop::sample::select(vec!["", "a/", "é/b/"]),
        0_u32..30,
        1_u32..5,
    );
    let many = many.prop_map(|(prefix, count, step)| {
        let keys = (0..count).map(move |i| format!("{prefix}{:03}", i * step));
        keys.collect::<BTreeSet<_>>()
    });
    let keys = (keys, many).prop_map(|(mut keys, mut many)| {
        keys.append(&mut many);
        keys
    });
    (
        keys,
        prop::collection::vec(key(), 0..3),
        any::<usize>().prop_map(|n| n % 1000),
    )
}

/// One world for all cases: starting it takes longer than a case.
fn a_world() -> World {
    world_with(Vec::<(String, Vec<u8>)>::new(), |settings| {
        settings.buckets = vec![Bucket {
            name: BUCKET.to_owned(),
            page: Some(5),
            ..Bucket::default()
        }];
        settings.lean = true;
    })
}

fn run(cases_to_run: u32, check: impl Fn(Case)) {
    let config = ProptestConfig {
        cases: cases_to_run,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/main/model.regressions"
        )))),
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    };
    let checked = TestRunner::new(config).run(&cases(), |case| {
        check(case);
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}

fn replace_all(world: &World, there: &mut BTreeSet<String>, keys: &BTreeSet<String>) {
    for gone in there.difference(keys) {
        world.remove(BUCKET, gone);
    }
    for new in keys.difference(there) {
        world.put(BUCKET, new, content(new));
    }
    there.clone_from(keys);
}

/// Asked each time: the mount shows the bucket as it is, change by change.
#[test]
fn the_tree_is_the_model_while_keys_come_and_go() {
    let world = a_world();
    let mount = Mount::with_args(&world, &["--metadata-ttl", "0"]);
    let there = Mutex::new(BTreeSet::new());
    run(10, |(mut keys, changes, order)| {
        let mut there = there.lock().unwrap_or_else(PoisonError::into_inner);
        replace_all(&world, &mut there, &keys);
        compare_by_name(&mount, &Model::new(&keys), order);
        compare(&mount, "", &Model::new(&keys));
        for change in changes {
            if !keys.remove(&change) {
                keys.insert(change);
            }
            replace_all(&world, &mut there, &keys);
            compare(&mount, "", &Model::new(&keys));
        }
        compare_by_name(&mount, &Model::new(&keys), order / 2);
    });
}

/// Believed: what is listed ahead, split and remembered is the same tree, whatever is asked first.
#[test]
fn what_is_remembered_is_the_model() {
    let world = a_world();
    let there = Mutex::new(BTreeSet::new());
    run(6, |(keys, _, order)| {
        let mut there = there.lock().unwrap_or_else(PoisonError::into_inner);
        replace_all(&world, &mut there, &keys);
        let mount = Mount::new(&world);
        let model = Model::new(&keys);
        if order % 2 == 0 {
            compare_by_name(&mount, &model, order);
        }
        compare(&mount, "", &model);
        compare_by_name(&mount, &model, order);
        compare(&mount, "", &model);
    });
}

/// Keys that come and go while a directory is read, by a thread of their own.
#[test]
fn a_listing_shows_what_was_there_all_the_time_while_others_come_and_go() {
    let world = a_world();
    let mount = Mount::with_args(&world, &["--metadata-ttl", "0"]);
    let there = Mutex::new(BTreeSet::new());
    run(6, |(keys, changing, _)| {
        let mut there = there.lock().unwrap_or_else(PoisonError::into_inner);
        replace_all(&world, &mut there, &keys);
        let changing: Vec<_> = changing.iter().filter(|key| !keys.contains(*key)).collect();
        let always = Model::new(&keys);
        let at_most = Model::new(keys.iter().chain(changing.iter().copied()));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    for key in &changing {
                        world.put(BUCKET, key, content(key));
                    }
                    for key in &changing {
                        world.remove(BUCKET, key);
                    }
                    std::thread::yield_now();
                }
            });
            let listed = std::panic::catch_unwind(|| {
                for _ in 0..4 {
                    let names: Vec<_> = mount.names("");
                    let once: BTreeSet<_> = names.iter().cloned().collect();
                    assert_eq!(once.len(), names.len(), "a name twice: {names:?}");
                    let always: BTreeSet<_> = always.names().into_iter().collect();
                    let at_most: BTreeSet<_> = at_most.names().into_iter().collect();
                    assert!(
                        always.is_subset(&once),
                        "lost: {:?}",
                        always.difference(&once)
                    );
                    assert!(
                        once.is_subset(&at_most),
                        "made up: {:?}",
                        once.difference(&at_most)
                    );
                }
            });
            is_over.store(true, Ordering::Relaxed);
            if let Err(panic) = listed {
                std::panic::resume_unwind(panic);
            }
        });
    });
}
