//! Entries of a listing that are made to harm whoever believes them.

use std::fmt::Write as _;

use super::lists::text;

/// How many entries a page of hostile keys has: as many as S3 ever sends.
pub(crate) const ENTRIES: usize = 1000;

/// Behind the prefix: names that a file system cannot have, or must not follow, or takes for others.
const NAMES: [&str; 52] = [
    "",
    ".",
    "..",
    "./x",
    "../x",
    "../../../../etc/passwd",
    "/",
    "//",
    "/etc/passwd",
    "a//b",
    "a/./b",
    "a/../b",
    "a/b/../../../c",
    "a/",
    "a",
    "a/b",
    "a",
    "nul\u{0}byte",
    "line\nbreak",
    "carriage\rreturn",
    "tab\tstop",
    "\u{1b}[31mred\u{7}",
    "\u{202e}gnp.exe",
    "\u{feff}mark",
    "\u{7f}",
    "\u{fffd}",
    "\u{fffe}",
    "\u{e9}",
    "e\u{301}",
    "\u{1f6f0}",
    "%2e%2e%2fx",
    "%",
    "%zz",
    "+",
    "a+b",
    "a b",
    " leading",
    "trailing ",
    "a\\b",
    "C:\\x",
    "CON",
    "a:b",
    "*?[x]",
    "-rf",
    "--help",
    "~",
    "$(reboot)",
    "`id`",
    ".fuse_hidden0000000100000001",
    ".nfs0001",
    "</Key><Key>x",
    "]]>&lt;",
];

/// Behind the prefix, as they stand, where keys are url-encoded: what does not decode, or not to UTF-8.
const BROKEN_ENCODINGS: [&str; 6] = ["%", "%4", "%zz", "%FF%FE", "%C3", "%ED%A0%80"];

/// What is no size, date or ETag.
pub(crate) const FIELDS: [(&str, &str, &str); 10] = [
    ("-1", "2021-01-27T00:50:09.000Z", "\"a\""),
    ("18446744073709551616", "2021-01-27T00:50:09.000Z", "\"a\""),
    ("9223372036854775807", "2021-01-27T00:50:09.000Z", "\"a\""),
    ("1e3", "2021-01-27T00:50:09.000Z", "\"a\""),
    ("", "2021-01-27T00:50:09.000Z", "\"a\""),
    ("1", "yesterday", "\"a\""),
    ("1", "0000-00-00T00:00:00.000Z", "\"a\""),
    ("1", "9999-12-31T23:59:60.000Z", "\"a\""),
    ("1", "2021-01-27T00:50:09.000Z", ""),
    ("1", "2021-01-27T00:50:09.000Z", "\"a\r\nX-Injected: 1\""),
];

/// A page of hostile keys, each with good fields.
pub(crate) fn keys(prefix: &str, url: bool) -> String {
    let mut keys: Vec<String> = NAMES
        .iter()
        .map(|name| text(&format!("{prefix}{name}"), url))
        .collect();
    // A name longer than a file system takes, a key as long as S3 takes, and one beyond.
    for length in [255, 256, 1024 - prefix.len().min(1023), 5000] {
        keys.push(text(&format!("{prefix}{}", "n".repeat(length)), url));
    }
    keys.push(text(&format!("{prefix}{}", "d/".repeat(500)), url));
    // Not below the prefix.
    keys.push(text("elsewhere/x", url));
    keys.push(String::new());
    if url {
        let prefix = text(prefix, url);
        keys.extend(BROKEN_ENCODINGS.map(|end| format!("{prefix}{end}")));
    }
    let mut xml = String::new();
    // As directories too, some of them.
    let directories = ["", ".", "..", "/", "a/", "a//", "../x/", "a/b/"];
    for name in directories {
        let name = text(&format!("{prefix}{name}"), url);
        let _ = write!(
            xml,
            "<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"
        );
    }
    for index in 0..ENTRIES - directories.len() {
        let key = &keys[index % keys.len()];
        // The first of each as it is, and then others like it.
        let round = index / keys.len();
        let suffix = match round {
            0 => String::new(),
            round => round.to_string(),
        };
        entry(
            &mut xml,
            &format!("{key}{suffix}"),
            (
                "7",
                "2021-01-27T00:50:09.000Z",
                "\"00000000000000000000000000000000\"",
            ),
        );
    }
    xml
}

/// Entries with good names, and with fields that are not what they should be.
pub(crate) fn fields(prefix: &str, url: bool) -> String {
    let mut xml = String::new();
    for (index, fields) in FIELDS.into_iter().enumerate() {
        let key = text(&format!("{prefix}field{index}"), url);
        entry(&mut xml, &key, fields);
    }
    xml
}

fn entry(xml: &mut String, key: &str, (size, modified, etag): (&str, &str, &str)) {
    let etag = text(etag, false);
    let _ = write!(
        xml,
        "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>{etag}</ETag><Size>{size}</Size></Contents>"
    );
}
