//! What holds whatever a user wants to mount.

use super::Source;

pub(crate) fn source(text: &str) {
    let source = match text.parse::<Source>() {
        Ok(source) => source,
        Err(message) => {
            // It quotes the text.
            assert!(!message.contains(char::is_control), "{message:?}");
            return;
        }
    };
    let (bucket, prefix) = (source.bucket(), source.prefix());
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    assert!(bucket.chars().all(plain) && bucket.len() >= 3);
    assert!(prefix.is_empty() || prefix.ends_with('/'));
    assert!(!prefix.contains(char::is_control));
    assert!(prefix.split('/').all(|part| part != "." && part != ".."));
    // An endpoint with the bucket in its host leads to that bucket.
    let url = format!("https://{bucket}.s3.us-west-2.amazonaws.com/");
    let url: hyper::Uri = url.parse().expect("a URL");
    let host = url
        .host()
        .and_then(|host| host.strip_suffix(".s3.us-west-2.amazonaws.com"));
    assert_eq!((host, url.path()), (Some(bucket), "/"));
    let shown = source.to_string();
    // It stands in the options of mount(2).
    assert!(!shown.contains(','), "{shown}");
    if !prefix.contains(',') {
        assert_eq!(shown.parse::<Source>().expect("what was shown"), source);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parsers::soup;

    const WORDS: &[&str] = &[
        "s3://",
        "podaac-ops",
        "bucket",
        "/",
        "//",
        ".",
        "..",
        ",",
        "=",
        "%2C",
        " ",
        "\n",
        "a",
        "-",
        "_",
        "É",
        "xn--",
        ":",
        "@",
        "?",
        "#",
    ];

    proptest! {
        #[test]
        fn sources_are_shown_as_they_are_read(text in soup(WORDS)) {
            source(&text);
            source(&format!("bucket/{text}"));
        }
    }
}
