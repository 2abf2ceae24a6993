//! What holds whatever a client of `serve-credentials` says. hyper reads its request; what it makes of the
//! token is compared, and of the host judged.

use reqwest::Url;

use super::serve::names_this_machine;
use crate::network::is_loopback;

pub(crate) fn host_header(text: &str) {
    let url = Url::parse(&format!("http://{text}/"));
    if !names_this_machine(text) {
        // What a browser writes for this machine is taken.
        if let Ok(url) = url
            && is_loopback(&url)
        {
            let host = url.host_str().expect("loopback");
            let written = match url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            };
            assert!(names_this_machine(&written), "{written}");
        }
        return;
    }
    // A browser that is at this host is at this machine, and does not read it in another way.
    let url = url.unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert!(is_loopback(&url), "{text:?}");
    assert!(
        url.username().is_empty() && url.password().is_none() && url.path() == "/",
        "{text:?}"
    );
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parsers::soup;

    const HOSTS: &[&str] = &[
        "localhost",
        "LocalHost",
        "127.0.0.1",
        "127.1",
        "[::1]",
        "::1",
        "::ffff:127.0.0.1",
        "0x7f.1",
        "2130706433",
        "169.254.169.254",
        "example.org",
        ".",
        ":",
        ":80",
        ":8080",
        ":99999",
        "@",
        "/",
        "\\",
        "?",
        "#",
        "%2e",
        "%31",
        " ",
        "\t",
        "[",
        "]",
        "\u{ff0e}",
    ];

    proptest! {
        #[test]
        fn only_this_machine_s_own_names_are_taken(
            text in soup(HOSTS),
            words in prop::collection::vec(prop::sample::select(HOSTS), 1..4),
        ) {
            host_header(&text);
            host_header(&words.concat());
        }
    }
}
