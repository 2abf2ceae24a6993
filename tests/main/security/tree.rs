//! What the program is made of: its unsafe code and its dependencies, as docs/security.md tells of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rust_files(directory: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut to_look_at = vec![root().join(directory)];
    while let Some(directory) = to_look_at.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                to_look_at.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// How many times a file leaves what the compiler checks.
fn count_unsafe(text: &str) -> usize {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let count = |line: &str| {
        let words = ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern "];
        words
            .iter()
            .map(|word| line.matches(word).count())
            .sum::<usize>()
    };
    code.map(count).sum()
}

#[test]
fn all_unsafe_code_is_listed_with_its_reason() {
    let document = read("docs/security.md");
    let mut listed = BTreeMap::new();
    for line in document.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let ["", path, count, reason, ""] = cells[..] else {
            continue;
        };
        if let Ok(count) = count.parse::<usize>() {
            assert!(reason.len() > 20, "no reason: {line}");
            listed.insert(path.trim_matches('`').to_owned(), count);
        }
    }
    let mut found = BTreeMap::new();
    for file in ["src", "tests/mock-earthdata/src"]
        .into_iter()
        .flat_map(rust_files)
    {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let path = file.strip_prefix(root()).expect("below the root");
        let path = path.to_str().expect("UTF-8").to_owned();
        let count = count_unsafe(&text);
        if count > 0 {
            found.insert(path, count);
        }
    }
    assert_eq!(listed, found, "docs/security.md is to list it");
}

/// Packages of Cargo.lock: name and version.
fn locked() -> Vec<(String, String)> {
    let lock = read("Cargo.lock");
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let packages = lock.split("[[package]]\n").skip(1);
    let packages = packages.filter_map(|p| Some((value(p, "name = ")?, value(p, "version = ")?)));
    packages.collect()
}

/// Two versions of these would be two stacks of TLS or HTTP, two runtimes, or two caches.
#[test]
fn one_stack_of_tls_and_http_is_in_the_tree() {
    let packages = locked();
    assert!(packages.len() > 100, "is the lock file read right?");
    for name in [
        "ring",
        "rustls",
        "rustls-webpki",
        "hyper",
        "h2",
        "http",
        "tokio",
        "tokio-rustls",
        "reqwest",
        "bytes",
        "lru",
    ] {
        let versions: BTreeSet<_> = packages.iter().filter(|(one, _)| one == name).collect();
        assert!(versions.len() <= 1, "{versions:?}");
    }
    for name in ["ring", "rustls", "hyper", "tokio"] {
        assert!(packages.iter().any(|(one, _)| one == name), "no {name}");
    }
    for (name, _) in &packages {
        // openssl-probe only looks for certificates.
        let is_other_tls = [
            "openssl-sys",
            "openssl",
            "native-tls",
            "aws-lc-rs",
            "aws-lc-sys",
            "mbedtls",
        ];
        assert!(!is_other_tls.contains(&name.as_str()), "{name}");
    }
}

/// No registry but crates.io, and nothing from a repository.
#[test]
fn all_dependencies_come_from_crates_io() {
    let lock = read("Cargo.lock");
    let sources = lock
        .lines()
        .filter_map(|line| line.strip_prefix("source = "));
    let sources: BTreeSet<_> = sources.collect();
    let crates_io = "\"registry+https://github.com/rust-lang/crates.io-index\"";
    assert_eq!(sources, BTreeSet::from([crates_io]));
}
