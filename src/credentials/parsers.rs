//! What holds whatever stands in a file in which processes share credentials.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::store::Record;
use super::{BootClock, Credentials, Fetch, Manager, Policy, Source};
use crate::earthdata::{Grant, LONGEST_LIFE, is_printable};
use crate::sync::Arc;

/// The boot clock of a machine that runs for 1,000 years, and some more that a file may speak of.
const TIMES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(10_000),
    Duration::from_secs(31_536_000_000),
    Duration::from_secs(u64::MAX - 200_000),
    Duration::MAX,
];

pub(crate) fn shared_file(text: &str) {
    let record = Record::parse(text);
    let written = serde_json::to_string(&record).expect("JSON");
    let again = serde_json::to_string(&Record::parse(&written)).expect("JSON");
    assert_eq!(again, written);
    for now in TIMES {
        if let Some(mark) = &record.refused {
            let _ = mark.holds(None, now);
        }
        let Some(shared) = &record.grant else {
            continue;
        };
        let grant = shared.grant(now);
        assert!(grant.remaining <= LONGEST_LIFE || !shared.is_living(None, now));
        assert!(is_printable(&grant.access_key_id));
        assert!(is_printable(grant.secret_access_key.expose_secret()));
        assert!(is_printable(grant.session_token.expose_secret()));
        assert!(!shared.is_fresh(None, now) || shared.is_living(None, now));
        assert!(!shared.is_living(Some(&grant.access_key_id), now));
        // As the manager counts it.
        if shared.is_living(None, now) {
            assert!(!grant.remaining.is_zero() && now.checked_add(grant.remaining).is_some());
        }
    }
}

/// To sign with.
pub(crate) fn some_credentials() -> Arc<Credentials> {
    struct Fixed;
    impl Source for Fixed {
        fn fetch<'a>(&'a self, _: Option<&'a str>) -> Fetch<'a> {
            Box::pin(async {
                Ok(Grant {
                    access_key_id: "ASIAX".to_owned(),
                    secret_access_key: "hunter2".into(),
                    session_token: "hunter3".into(),
                    remaining: Duration::from_secs(3600),
                    clock_ahead: 0,
                })
            })
        }

        fn name(&self) -> &str {
            "fixed"
        }
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let manager = Manager::start(Fixed, BootClock, Policy::default());
        manager.current().await.expect("credentials")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parsers::soup;

    const RECORD: &[&str] = &[
        "{\"grant\":{\"access_key_id\":\"ASIAX\",\"secret_access_key\":\"hunter2\",",
        "\"session_token\":\"hunter3\",\"clock_ahead\":0,",
        "\"granted\":{\"secs\":",
        "\"expires\":{\"secs\":",
        "0",
        "3600",
        "20000",
        "18446744073709551615",
        "-1",
        ",\"nanos\":0}",
        ",\"nanos\":4000000000}",
        ",",
        "}",
        "},\"refused\":null}",
        "\"refused\":{\"refusal\":\"Locked\",\"at\":{\"secs\":",
        "\"source_changed\":{\"secs_since_epoch\":1,\"nanos_since_epoch\":0}",
        "null",
        "\"",
    ];

    /// A record with these times in it.
    fn record(granted: u64, life: u64, at: u64) -> String {
        let expires = granted.saturating_add(life);
        format!(
            r#"{{"grant":{{"access_key_id":"A","secret_access_key":"s","session_token":"t",
            "granted":{{"secs":{granted},"nanos":0}},"expires":{{"secs":{expires},"nanos":999999999}},
            "clock_ahead":-9223372036854775808}},"refused":{{"refusal":"Locked",
            "at":{{"secs":{at},"nanos":0}},"source_changed":null}}}}"#
        )
    }

    proptest! {
        #[test]
        fn files_are_believed_or_not(text in soup(RECORD)) {
            shared_file(&text);
        }

        #[test]
        fn times_of_any_size_harm_nobody(granted: u64, life in 0_u64..200_000, at: u64) {
            shared_file(&record(granted, life, at));
            shared_file(&record(granted, u64::MAX, at));
        }
    }

    #[test]
    fn credentials_of_the_future_and_marks_of_the_future_say_nothing() {
        let record = Record::parse(&record(20_000, 3600, u64::MAX));
        let (grant, mark) = (
            record.grant.expect("sound"),
            record.refused.expect("a mark"),
        );
        let now = Duration::from_secs(10_000);
        assert!(!grant.is_living(None, now) && grant.is_living(None, now * 2));
        assert_eq!(mark.holds(None, now), None);
    }
}
