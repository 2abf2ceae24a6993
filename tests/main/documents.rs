//! What documents name is there: the tests that prove what they say, and files of this repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_in(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files
}

/// The first words of what README and docs/ quote, each with its document.
fn quoted() -> Vec<(String, String)> {
    let mut all = Vec::new();
    let documents = files_in(&root().join("docs"), "md");
    for document in documents.into_iter().chain([root().join("README.md")]) {
        let text = fs::read_to_string(&document).expect("a document");
        let words = text.split('`').skip(1).step_by(2);
        let first = words.filter_map(|quoted| quoted.split_whitespace().next());
        let name = document.display().to_string();
        all.extend(first.map(|word| (name.clone(), word.to_owned())));
    }
    all
}

/// Names of functions and modules.
fn items() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for directory in ["src", "tests"] {
        for file in files_in(&root().join(directory), "rs") {
            let text = fs::read_to_string(file).expect("a source file");
            let items = ["fn ", "mod "].map(|kind| text.split(kind).skip(1));
            let ends = |c: char| !c.is_alphanumeric() && c != '_';
            let found = items.into_iter().flatten();
            names.extend(found.filter_map(|rest| Some(rest.split(ends).next()?.to_owned())));
        }
    }
    names
}

#[test]
fn every_test_that_the_documents_name_is_there() {
    let items = items();
    let mut named = 0;
    for (document, word) in quoted() {
        if let Some((_, name)) = word.rsplit_once("::") {
            named += 1;
            assert!(items.contains(name), "{document}: {word} is no test");
        }
    }
    assert!(named >= 90, "{named}");
}

#[test]
fn every_file_that_the_documents_name_is_there() {
    let mut named = 0;
    for (document, word) in quoted() {
        if ["src/", "tests/", "scripts/", "docs/"]
            .iter()
            .any(|directory| word.starts_with(directory))
        {
            named += 1;
            assert!(
                root().join(&word).exists(),
                "{document}: there is no {word}"
            );
        }
    }
    assert!(named >= 15, "{named}");
}
