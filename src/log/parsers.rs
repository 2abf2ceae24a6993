//! What holds for the log whatever the messages are.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::fold::{Folding, LONGEST_MESSAGE, MOST_CAUSES, WINDOW};
use super::syslog::datagram;

/// Lines are warnings; `+N` lets N seconds pass, and `*N` says the last warning N times more.
pub(crate) fn log_fold(text: &str) {
    let folding = Folding::default();
    let mut now = Instant::now();
    // How often each was said that is watched, and since when.
    let mut watched: HashMap<&str, (Instant, u64)> = HashMap::new();
    let mut last = "";
    for line in text.lines() {
        let number = |mark| line.strip_prefix(mark)?.parse::<u16>().ok();
        if let Some(seconds) = number('+') {
            now += Duration::from_secs(seconds.into());
            let over = watched.extract_if(|_, (since, _)| now - *since >= WINDOW);
            let over = over.filter(|(_, (_, more))| *more > 0);
            let mut expected: Vec<_> = over
                .map(|(text, (_, more))| (text.to_owned(), more))
                .collect();
            let mut told = folding.told(now);
            expected.sort();
            told.sort();
            assert_eq!(told, expected);
            continue;
        }
        let times = number('*').map_or(1, |times| u64::from(times % 1000));
        if number('*').is_none() {
            last = &line[..line.floor_char_boundary(LONGEST_MESSAGE)];
        }
        for _ in 0..times {
            let is_first = folding.is_first(if number('*').is_none() { line } else { last }, now);
            match watched.get_mut(last) {
                Some((_, more)) => {
                    *more += 1;
                    assert!(!is_first, "{last:?}");
                }
                None => {
                    assert!(is_first, "{last:?}");
                    if watched.len() < MOST_CAUSES {
                        watched.insert(last, (now, 0));
                    }
                }
            }
        }
        assert!(folding.len() == watched.len() && watched.len() <= MOST_CAUSES);
    }
    let line = datagram(text.trim(), 7);
    let severities = ["<27>", "<28>", "<30>", "<31>"];
    let behind = severities
        .iter()
        .find_map(|severity| line.strip_prefix(severity));
    let said = behind.and_then(|line| line.strip_prefix("s3credmount[7]: "));
    assert!(text.contains(said.expect("a head")), "{line:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parsers::soup;

    const LONG: &str = concat!(
        "the same words for long, the same words for long, the same words for long, the same words ",
        "the same words for long, the same words for long, the same words for long, the same words ",
        "the same words for long, the same words for long, the same words for long, the same words "
    );
    const WORDS: &[&str] = &[
        "\n", "\n+30\n", "\n+60\n", "\n+61\n", "\n*300\n", "a", "b", "WARN ", "ERROR", LONG, "é",
    ];

    proptest! {
        #[test]
        fn each_warning_is_told_or_counted(text in soup(WORDS)) {
            log_fold(&text);
        }
    }
}
