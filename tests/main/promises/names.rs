//! Keys and names.

use std::ffi::OsStr;
use std::fs::{self};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};

use super::*;
use crate::support::Mount;

#[test]
fn keys_become_files_and_directories() {
    promised("The key `a/b/c` is the file `c` in the directory `a/b`.");
    promised("A directory exists if at least one key begins with its name and a slash.");
    promised(
        "A key that ends in a slash, a marker, makes its directory exist, and is not shown in it.",
    );
    let world = keys(&["a/b/c", "marked/", "marked/x", "only/"]);
    let mount = Mount::new(&world);
    assert_eq!(mount.read("a/b/c"), b"a/b/c");
    assert!(mount.path("a/b").is_dir() && mount.path("a").is_dir());
    assert_eq!(listed(&mount, "a/b"), ["c"]);
    assert_eq!(listed(&mount, "marked"), ["x"]);
    assert!(listed(&mount, "only").is_empty());
    assert!(mount.path("only").is_dir());
    assert_eq!(listed(&mount, ""), ["a", "marked", "only"]);
    assert_eq!(stat_errno(&mount, "marked/marked"), Some(libc::ENOENT));
}

#[test]
fn a_directory_hides_a_file_of_the_same_name() {
    promised(
        "A directory hides a file of the same name: where the keys `a` and `a/b` exist, `a` is a \
         directory.",
    );
    promised("Names are listed once each");
    let world = keys(&["a", "a-", "a.txt", "a/b", "marked", "marked/"]);
    // Asked by name, on a mount that has listed nothing.
    let mount = Mount::new(&world);
    assert_eq!(mount.read("a/b"), b"a/b");
    assert!(mount.path("a").is_dir() && mount.path("marked").is_dir());
    assert_eq!(mount.read("a-"), b"a-");
    // And listed, on one that was asked for no name.
    let mount = Mount::new(&world);
    assert_eq!(mount.names(""), ["a", "a-", "a.txt", "marked"]);
    assert!(mount.path("a").is_dir() && mount.path("marked").is_dir());
}

#[test]
fn odd_names_are_told_apart_and_read() {
    promised(
        "Names are the bytes of the key in UTF-8, unchanged: case, blanks, `+`, `%`, control \
         characters, line feeds and the two Unicode spellings of `é` all make different names.",
    );
    let longest = "y".repeat(255);
    let longest_accented = format!("{}x", "é".repeat(127));
    let mut odd = vec![
        " ",
        " lead",
        "trail ",
        "trail",
        "a b",
        "a+b",
        "a%20b",
        "a%2Bb",
        "%",
        "%%41",
        "+",
        "é",
        "e\u{301}",
        "É",
        "Case",
        "case",
        "日本語",
        "😀",
        "\\",
        "*?[x]",
        "#",
        "a?b=c&d",
        "<&>\"'",
        "...",
        ".hidden",
        "-rf",
        "~",
        "a\nb",
        "\n",
        "tab\t",
        "\u{1}",
        "\u{7f}",
        "\r",
        "\u{85}",
        "\u{feff}",
        "\u{fffd}",
        "a:b;c,d",
        "x=y",
        "\u{202e}",
    ];
    odd.push(&longest);
    odd.push(&longest_accented);
    assert_eq!(longest_accented.len(), 255);
    let all: Vec<_> = odd.iter().map(|name| format!("odd/{name}")).collect();
    let in_directories: Vec<_> = odd.iter().map(|name| format!("dirs/{name}/x")).collect();
    let all: Vec<_> = all.iter().chain(&in_directories).map(|k| &**k).collect();
    let world = keys(&all);
    // By name first: nothing is listed yet.
    let mount = Mount::new(&world);
    for key in &all {
        assert_eq!(mount.read(key), key.as_bytes(), "{key:?}");
    }
    let mount = Mount::new(&world);
    odd.sort_unstable();
    assert_eq!(mount.names("odd"), odd);
    assert_eq!(mount.names("dirs"), odd);
    for key in &all {
        assert_eq!(mount.read(key), key.as_bytes(), "{key:?}, listed");
    }
    for absent in ["odd/CASE", "odd/e", "odd/a  b", "odd/trail  ", "odd/日本"] {
        assert_eq!(stat_errno(&mount, absent), Some(libc::ENOENT), "{absent}");
    }
}

#[test]
fn components_that_no_path_can_say_are_left_out_and_harm_nobody() {
    promised(
        "A path component that is empty, `.` or `..`, that holds a NUL byte, or that is longer \
         than 255 bytes, cannot be named. Keys with such a component are left out.",
    );
    promised(
        "Keys that are left out do no harm to their neighbours: listings and reads of the others go on.",
    );
    promised(
        "When a listing of S3 has left out keys, the log says how many keys and common prefixes, \
         once for each such listing of a directory.",
    );
    promised("A directory of which all keys are left out exists and is empty.");
    let long = "z".repeat(256);
    let (long_file, long_directory) = (format!("d/{long}"), format!("e/{long}/x"));
    let world = keys(&[
        "/root",
        "d//x",
        "d/./x",
        "d/../x",
        "d/ok",
        &long_file,
        "e/ok",
        &long_directory,
        "nul/a\0b",
        "nul/ok",
        "void//x",
        "void/../x",
    ]);
    let mount = Mount::new(&world);
    assert_eq!(mount.names(""), ["d", "e", "nul", "void"]);
    assert_eq!(mount.names("d"), ["ok"]);
    assert_eq!(mount.names("d"), ["ok"]);
    assert_eq!(mount.names("e"), ["ok"]);
    assert_eq!(mount.names("nul"), ["ok"]);
    assert!(mount.names("void").is_empty() && mount.path("void").is_dir());
    for (key, directory, count) in [
        ("d/ok", "d/", 4),
        ("e/ok", "e/", 1),
        ("nul/ok", "nul/", 1),
        ("", "void/", 2),
    ] {
        if !key.is_empty() {
            assert_eq!(mount.read(key), key.as_bytes());
        }
        let keys = if count == 1 { "key is" } else { "keys are" };
        let line = format!("{count} {keys} left out of the directory {directory:?}");
        let log = mount.log_with(&line);
        let told = log.lines().filter(|told| told.contains(&line));
        assert_eq!(told.count(), 1, "{directory} in {log}");
    }
    // Asked by name where nothing was listed.
    let mount = Mount::new(&world);
    assert_eq!(stat_errno(&mount, "root"), Some(libc::ENOENT));
    assert_eq!(stat_errno(&mount, "d/x"), Some(libc::ENOENT));
    assert!(mount.path("void").is_dir());
    assert_eq!(mount.read("d/ok"), b"d/ok");
    assert!(mount.names("void").is_empty());
}

#[test]
fn names_that_no_key_has() {
    promised(
        "A name that is not UTF-8 does not exist (ENOENT), nor does a key of more than 1,024 bytes, which \
         S3 cannot have; a name of more than 255 bytes is too long (ENAMETOOLONG).",
    );
    let directories = [
        "n".repeat(250),
        "n".repeat(250),
        "n".repeat(250),
        "n".repeat(250),
    ]
    .join("/");
    let longest = format!("{directories}/{}", "n".repeat(20));
    assert_eq!(longest.len(), 1024);
    let world = keys(&["a", &longest]);
    let mount = Mount::new(&world);
    let bytes = OsStr::from_bytes(b"\xff\xfe");
    assert_eq!(stat_errno(&mount, bytes), Some(libc::ENOENT));
    assert_eq!(stat_errno(&mount, "x".repeat(255)), Some(libc::ENOENT));
    assert_eq!(
        stat_errno(&mount, "x".repeat(256)),
        Some(libc::ENAMETOOLONG)
    );
    assert_eq!(
        stat_errno(&mount, "é".repeat(128)),
        Some(libc::ENAMETOOLONG)
    );
    assert_eq!(mount.read(&longest), longest.as_bytes());
    world.reset_counters();
    assert_eq!(
        stat_errno(&mount, format!("{longest}n")),
        Some(libc::ENOENT)
    );
    assert_eq!(world.counters().list, 0, "not asked for");
    assert_eq!(stat_errno(&mount, "a/b"), Some(libc::ENOTDIR));
    assert_eq!(stat_errno(&mount, "b/c"), Some(libc::ENOENT));
    assert_eq!(errno(fs::read(mount.root())), Some(libc::EISDIR));
}

#[test]
fn listings_are_in_key_order_and_inodes_ascend_with_them() {
    promised("in the byte order of their keys, where a directory counts with its final slash.");
    promised(
        "In a directory of which nothing was known before, inode numbers ascend in the byte order \
         of the keys.",
    );
    promised(
        "An inode number never changes its meaning while the bucket is mounted, and no number is \
         used twice.",
    );
    let mut all: Vec<_> = (0..2500).map(|i| format!("many/{i:04}")).collect();
    all.extend(["c-1", "c.x", "c/x", "c0", "B", "a", "é"].map(|name| format!("few/{name}")));
    let world = keys(&all.iter().map(|key| &**key).collect::<Vec<_>>());
    let mount = Mount::new(&world);
    assert_eq!(
        listed(&mount, "few"),
        ["B", "a", "c-1", "c.x", "c", "c0", "é"]
    );
    let mut seen = std::collections::HashSet::new();
    for directory in ["many", "few"] {
        let entries = fs::read_dir(mount.path(directory)).expect("a directory");
        let entries: Vec<_> = entries.map(|entry| entry.expect("an entry")).collect();
        let numbers: Vec<_> = entries.iter().map(DirEntryExt::ino).collect();
        assert!(
            numbers.is_sorted_by(|a, b| a < b),
            "{directory}: {numbers:?}"
        );
        for (entry, number) in entries.iter().zip(numbers) {
            let stat = entry.metadata().expect("stat");
            assert_eq!(stat.ino(), number, "{:?}", entry.path());
            assert!(seen.insert(number), "{number} twice");
        }
    }
    assert_eq!(seen.len(), 2507);
}
