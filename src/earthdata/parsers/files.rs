//! What holds whatever stands in a user's files, and in what CMR tells and the table of buckets keeps.

use std::sync::OnceLock;

use secrecy::ExposeSecret;

use super::is_in_header;
use crate::earthdata::bare_token;
use crate::earthdata::login::check_token;
use crate::earthdata::netrc::Netrc;
use crate::earthdata::registry::{BucketRow, Table, is_bucket, is_trusted};
use crate::earthdata::sweep::{Page, Tally};
use crate::parsers::check_message;

pub(crate) fn netrc(text: &str) {
    let parsed = match Netrc::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            check_message(&error.to_string());
            assert!(
                (1..=text.split('\n').count()).contains(&error.line),
                "{error}"
            );
            return;
        }
    };
    let (written, shown) = (parsed.written(None), format!("{parsed:?}"));
    let again = Netrc::parse(&written).expect("what was written");
    assert_eq!(again.written(None), written);
    // What is shown depends on no password.
    let others = Netrc::parse(&parsed.written(Some("another"))).expect("what was written");
    assert_eq!(format!("{others:?}"), shown);
    for host in parsed.hosts() {
        let found = |netrc: &Netrc, host: &str| {
            let found = netrc.find(&[host]);
            found.map(|(user, password)| (user, password.expose_secret().to_owned()))
        };
        let expected = found(&parsed, host);
        assert_eq!(found(&again, host), expected);
        assert_eq!(found(&parsed, &host.to_ascii_uppercase()), expected);
    }
}

pub(crate) fn token_file(text: &str) {
    let token = bare_token(text);
    match check_token(&token, "FILE") {
        Ok(()) => {
            assert!(is_in_header(&token));
            assert_eq!(
                bare_token(token.expose_secret()).expose_secret(),
                token.expose_secret()
            );
            assert!(text.contains(token.expose_secret()));
        }
        Err(error) => check_message(&error.to_string()),
    }
}

pub(crate) fn cmr(text: &str) {
    let Ok(page) = serde_json::from_str::<Page>(text) else {
        return;
    };
    let mut tally = Tally::default();
    let items = page.items.len() as u64;
    page.items.into_iter().for_each(|item| tally.add(item));
    assert_eq!(tally.collections, items);
    check_table(&tally.table("2026-11-24"));
}

pub(crate) fn bucket_table(text: &str) {
    let table = Table::parse(text);
    check_table(&table);
    static BUILT_IN: OnceLock<Table> = OnceLock::new();
    let built_in = BUILT_IN.get_or_init(Table::built_in);
    let both = table.clone().or(built_in.clone());
    for row in table.rows() {
        assert_eq!(both.find(row.bucket()), Some(row));
    }
    let others = built_in.rows().iter().map(BucketRow::bucket);
    let count = others.filter(|bucket| table.find(bucket).is_none()).count();
    assert_eq!(both.rows().len(), table.rows().len() + count);
}

fn check_table(table: &Table) {
    assert!(table.rows().is_sorted_by(|a, b| a.bucket() < b.bucket()));
    for row in table.rows() {
        assert!(
            is_bucket(row.bucket()) && is_trusted(row.endpoint()),
            "{row:?}"
        );
        for text in [
            row.region(),
            row.archive(),
            &row.line().replace(['\t', '\n'], ""),
        ] {
            check_message(text);
        }
        assert_eq!(table.find(row.bucket()), Some(row));
    }
    let again = Table::parse(&table.text());
    assert_eq!(again.rows(), table.rows());
    assert_eq!(again.swept(), table.swept());
    let buckets: Vec<_> = table.rows().iter().map(BucketRow::bucket).collect();
    assert_eq!(table.nearest("podaac-ops").len(), buckets.len().min(3));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parsers::soup;

    const NETRC: &[&str] = &[
        "machine ",
        "default ",
        "login ",
        "password ",
        "account ",
        "macdef ",
        "user ",
        "\n",
        "\n\n",
        " ",
        "\t",
        "\"",
        "\\",
        "#",
        "urs.earthdata.nasa.gov ",
        "ada ",
        "hunter2 ",
        "\u{feff}",
        "\r",
    ];
    const CMR: &[&str] = &[
        "{\"items\":[",
        "]}",
        "{\"meta\":{\"provider-id\":\"POCLOUD\"},",
        "\"umm\":",
        "{}",
        "null",
        "{\"DirectDistributionInformation\":{",
        "\"Region\":\"us-west-2\",",
        "}}}",
        ",",
        "\"S3BucketAndObjectPrefixNames\":[\"",
        "podaac-ops/MUR",
        "-protected",
        "\"],",
        "s3://",
        "\"S3CredentialsAPIEndpoint\":\"https://a.earthdata.nasa.gov/s3credentials\"",
    ];
    const TABLE: &[&str] = &[
        "# swept 2026-11-24",
        "\n",
        "\t",
        "good-bucket\t",
        "prod-lads\t",
        "us-west-2\t",
        "POCLOUD",
        "https://x.earthdata.nasa.gov/s3credentials\t",
        "#",
        "a",
        "-",
        "\r",
    ];

    proptest! {
        #[test]
        fn netrc_files_are_read_back_as_written(text in soup(NETRC)) {
            netrc(&text);
        }

        #[test]
        fn tokens_fit_into_a_header(text in soup(&["Bearer ", "abc", " ", "\n", "\r\n", "\u{7f}"])) {
            token_file(&text);
        }

        #[test]
        fn a_table_holds_what_a_login_may_be_sent_to(page in soup(CMR), file in soup(TABLE)) {
            cmr(&page);
            bucket_table(&file);
        }
    }
}
