//! What CMR's collections say of buckets, made into rows of the table.
//!
//! `DirectDistributionInformation` is text that each archive types for each collection. Known dirt
//! (sweep of 9,846 collections, 2026-08-18): the bucket as an S3 URL, or with its object prefix
//! attached without a `/`; placeholders; an S3 URL or a host name where the endpoint belongs; two
//! endpoints for one bucket. What makes no [`BucketRow`] is left out and counted; among what
//! collections say of a bucket, most of them win.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::registry::{BucketRow, Table, is_bucket};

/// One page of `collections.umm_json`.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) items: Vec<Collection>,
}

/// What is of interest in a collection's record; whatever has another form than it should counts as
/// missing.
#[derive(Deserialize)]
pub(super) struct Collection {
    #[serde(default, deserialize_with = "lenient")]
    meta: Meta,
    #[serde(default, deserialize_with = "lenient")]
    umm: Umm,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta {
    #[serde(rename = "provider-id", deserialize_with = "lenient")]
    provider: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Umm {
    #[serde(rename = "DirectDistributionInformation")]
    #[serde(deserialize_with = "lenient")]
    direct: Option<Direct>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Direct {
    #[serde(deserialize_with = "lenient")]
    region: String,
    #[serde(rename = "S3BucketAndObjectPrefixNames")]
    #[serde(deserialize_with = "lenient")]
    names: Vec<String>,
    #[serde(rename = "S3CredentialsAPIEndpoint")]
    #[serde(deserialize_with = "lenient")]
    endpoint: String,
}

fn lenient<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: DeserializeOwned + Default,
    D: Deserializer<'de>,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// How often something was said.
type Votes = BTreeMap<String, u64>;

/// What was said of one bucket.
#[derive(Default)]
struct Said {
    /// Endpoint, region: they belong together.
    access: BTreeMap<(String, String), u64>,
    providers: Votes,
}

/// What the collections seen so far say.
#[derive(Default)]
pub(super) struct Tally {
    buckets: BTreeMap<String, Said>,
    /// Collections seen.
    pub(super) collections: u64,
    /// Names of buckets with which nothing can be done.
    pub(super) left_out: u64,
}

impl Tally {
    pub(super) fn add(&mut self, collection: Collection) {
        self.collections += 1;
        let Some(direct) = collection.umm.direct else {
            return;
        };
        let (endpoint, region) = (direct.endpoint.trim(), direct.region.trim());
        let provider = collection.meta.provider.trim();
        let row = |name: &String| BucketRow::new(bucket(name)?, endpoint, region, provider);
        let rows: Vec<_> = direct.names.iter().map(row).collect();
        self.left_out += rows.iter().filter(|row| row.is_none()).count() as u64;
        // Once for each collection, however many of its prefixes are in the bucket.
        let names = rows.iter().flatten().map(BucketRow::bucket);
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let said = self.buckets.entry(name.to_owned()).or_default();
            let access = (endpoint.to_owned(), region.to_owned());
            *said.access.entry(access).or_default() += 1;
            *said.providers.entry(provider.to_owned()).or_default() += 1;
        }
    }

    /// The table, as of the day `swept`.
    pub(super) fn table(&self, swept: &str) -> Table {
        let row = |(bucket, said): (&String, &Said)| {
            let (endpoint, region) = most(&said.access)?;
            BucketRow::new(bucket, endpoint, region, most(&said.providers)?)
        };
        Table::new(self.buckets.iter().filter_map(row).collect(), swept)
    }
}

/// What was said most often; of equals the first in order, so that a table does not change from sweep
/// to sweep.
fn most<T: Ord>(votes: &BTreeMap<T, u64>) -> Option<&T> {
    let most = votes.iter().rev().max_by_key(|(_, count)| **count);
    most.map(|(said, _)| said)
}

/// The bucket's name in an entry: `bucket/prefix`, `s3://bucket/prefix`, or `bucketprefix` where the
/// bucket ends in `-protected` or `-public`, as those of Cumulus do.
fn bucket(entry: &str) -> Option<&str> {
    let entry = entry.trim();
    let entry = entry.strip_prefix("s3://").unwrap_or(entry);
    let name = entry.split('/').next().unwrap_or(entry);
    if is_bucket(name) {
        return Some(name);
    }
    let ends = ["-protected", "-public"].iter();
    let ends = ends.filter_map(|end| Some(name.find(end)? + end.len()));
    ends.min().map(|end| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(items: &str) -> Tally {
        let page: Page = serde_json::from_str(&format!(r#"{{"items":[{items}]}}"#)).expect("JSON");
        let mut tally = Tally::default();
        page.items.into_iter().for_each(|item| tally.add(item));
        tally
    }

    fn item(names: &str, endpoint: &str) -> String {
        format!(
            r#"{{"meta":{{"provider-id":"POCLOUD"}},"umm":{{"DirectDistributionInformation":
            {{"Region":"us-west-2","S3BucketAndObjectPrefixNames":{names},
            "S3CredentialsAPIEndpoint":"{endpoint}"}}}}}}"#
        )
    }

    const A: &str = "https://a.earthdata.nasa.gov/s3credentials";
    const B: &str = "https://b.earthdata.nasa.gov/s3credentials";

    #[test]
    fn names_are_found_in_what_archives_type() {
        for (entry, expected) in [
            ("podaac-ops/MUR/", Some("podaac-ops")),
            ("s3://podaac-ops/MUR/", Some("podaac-ops")),
            (" podaac-ops ", Some("podaac-ops")),
            (
                "s3://gesdisc-cumulus-prod-protectedAqua_AIRS_Level2/AIRXBCAL.005/",
                Some("gesdisc-cumulus-prod-protected"),
            ),
            (
                "csda-cumulus-prod-protected-5047/x",
                Some("csda-cumulus-prod-protected-5047"),
            ),
            ("TestBucket", None),
            ("", None),
        ] {
            assert_eq!(bucket(entry), expected, "{entry}");
        }
    }

    #[test]
    fn most_collections_win_and_equals_are_decided_by_name() {
        let names = r#"["one-bucket/a","one-bucket/b"]"#;
        let two_of_b = [item(names, A), item(names, B), item(names, B)].join(",");
        let endpoint = |tally: &Tally| {
            let table = tally.table("2026-11-24");
            table
                .find("one-bucket")
                .expect("there")
                .endpoint()
                .to_owned()
        };
        assert_eq!(endpoint(&tally(&two_of_b)), B);
        let one_each = [item(names, B), item(names, A)].join(",");
        assert_eq!(endpoint(&tally(&one_each)), A);
    }

    #[test]
    fn dirt_is_left_out_and_hurts_nothing() {
        let dirt = [
            item(r#"["evil-bucket/x"]"#, "https://example.org/s3credentials"),
            item(r#"["other-bucket/x"]"#, "s3://other-bucket/s3credentials"),
            item(r#"["TestBucket"]"#, "www.testexample.com"),
            item(r#""not-a-list""#, A),
            r#"{"meta":null,"umm":{"DirectDistributionInformation":[1,2]}}"#.to_owned(),
            r#"{"umm":{}}"#.to_owned(),
            r"{}".to_owned(),
            r#"{"meta":{"provider-id":7},"umm":{"DirectDistributionInformation":
            {"Region":null,"S3BucketAndObjectPrefixNames":["null-bucket"],
            "S3CredentialsAPIEndpoint":null}}}"#
                .to_owned(),
            item(r#"["good-bucket/x"]"#, A),
        ];
        let tally = tally(&dirt.join(","));
        let table = tally.table("2026-11-24");
        let names: Vec<_> = table.rows().iter().map(BucketRow::bucket).collect();
        assert_eq!(names, ["good-bucket"]);
        assert_eq!((tally.collections, tally.left_out), (9, 4));
    }
}
