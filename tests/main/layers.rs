//! The layers of `src/lib.rs`: imports point down only.

use std::collections::BTreeMap;
use std::path::Path;

/// Each module with those that it may import, from the top down; `sync` and `request` are free to all.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    (
        "main",
        &["background", "cli", "log", "mount", "process", "tools"],
    ),
    ("background", &["mount"]),
    (
        "cli",
        &[
            "tools",
            "mount",
            "credentials",
            "earthdata",
            "s3",
            "log",
            "memory",
            "network",
            "process",
        ],
    ),
    (
        "tools",
        &[
            "mount",
            "credentials",
            "earthdata",
            "s3",
            "instance",
            "network",
            "process",
        ],
    ),
    (
        "mount",
        &[
            "fuse",
            "fs",
            "namespace",
            "reader",
            "s3",
            "credentials",
            "earthdata",
            "instance",
            "network",
            "process",
        ],
    ),
    ("fuse", &["fs", "namespace", "s3"]),
    ("fs", &["namespace", "reader", "cache", "s3"]),
    ("namespace", &["s3"]),
    ("reader", &["cache", "s3"]),
    ("cache", &["s3", "memory"]),
    ("s3", &["credentials", "network"]),
    ("credentials", &["earthdata", "network", "process"]),
    ("earthdata", &["network"]),
    ("instance", &["network"]),
    ("log", &[]),
    ("memory", &[]),
    ("network", &[]),
    ("process", &[]),
    ("request", &[]),
    ("sync", &[]),
    // What holds for the parsers of all, for tests and the fuzzer only.
    (
        "parsers",
        &[
            "cli",
            "tools",
            "mount",
            "namespace",
            "s3",
            "credentials",
            "earthdata",
            "log",
        ],
    ),
    ("lib", &[]),
];

#[test]
fn imports_point_down_only() {
    let allowed: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for file in rust_files(&source) {
        if file
            .to_str()
            .is_some_and(|path| path.ends_with("_tests.rs"))
        {
            // Tests import what they build.
            continue;
        }
        let relative = file.strip_prefix(&source).expect("below src");
        let module = relative.iter().next().expect("not empty");
        let module = module.to_str().expect("UTF-8").trim_end_matches(".rs");
        let allowed = allowed
            .get(module)
            .unwrap_or_else(|| panic!("{module} has no place in the layers"));
        let text = std::fs::read_to_string(&file).expect("a source file");
        for import in imports(&text) {
            seen += 1;
            assert!(
                matches!(import, "sync" | "request" | "parsers")
                    || import == module
                    || allowed.contains(&import),
                "{} imports {import}",
                file.display()
            );
        }
    }
    assert!(seen > 40, "only {seen} imports found: is the scan right?");
}

/// The lines that are no comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

fn imports(text: &str) -> impl Iterator<Item = &str> {
    let mentions = code(text).flat_map(|line| line.split("crate::").skip(1));
    mentions.filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        Some(&rest[..end]).filter(|name| !name.is_empty())
    })
}

fn rust_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn no_sdk_type_is_seen_above_s3_and_no_clap_type_below_cli() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let module = file.strip_prefix(&source).expect("below src");
        let text = std::fs::read_to_string(&file).expect("a source file");
        let holds = |word| code(&text).any(|line| line.contains(word));
        if !module.starts_with("s3") {
            assert!(!holds("aws_sdk_s3::"), "{} uses the SDK", file.display());
        }
        if !module.starts_with("cli") && module != Path::new("main.rs") {
            assert!(!holds("clap::"), "{} uses clap", file.display());
        }
        if !module.starts_with("fuse") && !module.starts_with("mount") {
            assert!(!holds("fuser::"), "{} uses fuser", file.display());
        }
        if module != Path::new("fuse/answers.rs") && !module.starts_with("mount") {
            assert!(!holds("libc::E"), "{} knows errno", file.display());
        }
    }
}
