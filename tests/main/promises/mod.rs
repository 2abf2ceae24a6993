//! The promises of `docs/semantics.md`, quoted and checked on a real mount, and README's table of
//! options against the program's own `--help`.

mod attributes;
mod changes;
mod denied;
mod directories;
mod names;
mod readme;

use std::fs;
use std::io;
use std::path::Path;

use mock_earthdata::World;

use crate::support::{Mount, world};

pub(super) fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"));
    folded(&text)
}

/// White space as single blanks.
pub(super) fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Asserts that `docs/semantics.md` says this, word for word.
pub(super) fn promised(sentence: &str) {
    let stands = document("docs/semantics.md").contains(&folded(sentence));
    assert!(stands, "docs/semantics.md does not say: {sentence}");
}

/// A world of objects that hold their own keys.
pub(super) fn keys(keys: &[&str]) -> World {
    world(keys.iter().map(|key| (*key, key.as_bytes().to_vec())))
}

/// The names in a directory, in the order of the listing.
pub(super) fn listed(mount: &Mount, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(mount.path(directory)).expect("a directory");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let names = entries.map(|entry| name(entry).into_string().expect("UTF-8"));
    names.collect()
}

pub(super) fn errno<T>(result: io::Result<T>) -> Option<i32> {
    match result {
        Ok(_) => None,
        Err(error) => error.raw_os_error(),
    }
}

pub(super) fn stat_errno(mount: &Mount, name: impl AsRef<Path>) -> Option<i32> {
    errno(fs::symlink_metadata(mount.path(name)))
}

pub(super) const EACH_TIME: [&str; 2] = ["--metadata-ttl", "0"];
pub(super) const FOR_EVER: [&str; 2] = ["--metadata-ttl", "inf"];
