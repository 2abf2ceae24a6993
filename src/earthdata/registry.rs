//! The table of Earthdata buckets and their endpoints: built in, and what the user's own sweep of
//! CMR has found since ([`super::cmr`]), which wins.
//!
//! Both come from NASA's Common Metadata Repository (CMR), `DirectDistributionInformation` of its
//! cloud collections: text that many people typed. A login goes where the table says, so a
//! [`BucketRow`] can only hold an endpoint that is https on one of NASA's own hosts. What a user
//! types (`--credentials-endpoint`) is trusted as typed, and never passes through here.

use reqwest::Url;

use crate::network::is_region;

/// One bucket of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRow {
    bucket: String,
    endpoint: String,
    region: String,
    provider: String,
    archive: String,
}

/// CMR's providers have up to 10 characters, and a bucket rarely more than two of them: all of it is shown
/// in a line.
const LONGEST_PROVIDER: usize = 100;
/// No name of a host is longer (RFC 1035, 2.3.4).
const LONGEST_HOST: usize = 253;

impl BucketRow {
    /// `None` unless the bucket's name is one, and the endpoint may be trusted with a login. The
    /// archive's name is told by CMR's `provider` for it.
    pub(super) fn new(bucket: &str, endpoint: &str, region: &str, provider: &str) -> Option<Self> {
        let plain = |text: &str| {
            (1..=LONGEST_PROVIDER).contains(&text.len()) && !text.contains(char::is_control)
        };
        let sound =
            is_bucket(bucket) && is_trusted(endpoint) && is_region(region) && plain(provider);
        sound.then(|| Self {
            bucket: bucket.to_owned(),
            endpoint: endpoint.to_owned(),
            region: region.to_owned(),
            provider: provider.to_owned(),
            archive: archive(provider).to_owned(),
        })
    }

    /// Reads a line of the table; `None` if it is not one.
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split('\t');
        let mut next = || columns.next();
        Self::new(next()?, next()?, next()?, next()?)
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The URL of the `/s3credentials` endpoint that serves it: https, on a host of NASA's.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The AWS region that the bucket is in.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The archive's name.
    pub fn archive(&self) -> &str {
        &self.archive
    }

    /// Its line in a file.
    pub(super) fn line(&self) -> String {
        let Self {
            bucket,
            endpoint,
            region,
            provider,
            archive,
        } = self;
        format!("{bucket}\t{endpoint}\t{region}\t{provider}\t{archive}\n")
    }
}

/// Buckets in order of their names.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<BucketRow>,
    swept: String,
}

impl Table {
    /// The table that the program brings along.
    pub fn built_in() -> Self {
        Self::parse(include_str!("buckets.tsv"))
    }

    /// Reads rows, a line each, of tab-separated columns. Lines that are no row, or name an endpoint
    /// that may not be trusted, are left out.
    pub(super) fn parse(text: &str) -> Self {
        let (comments, lines): (Vec<_>, Vec<_>) = text.lines().partition(|l| l.starts_with('#'));
        let after_swept = comments.iter().find_map(|line| line.split_once("swept "));
        let date = after_swept.map_or("", |(_, date)| date);
        let end = date.find(|c: char| !c.is_ascii_digit() && c != '-');
        Self::new(
            lines.into_iter().filter_map(BucketRow::parse).collect(),
            &date[..end.unwrap_or(date.len())],
        )
    }

    pub(super) fn new(mut rows: Vec<BucketRow>, swept: &str) -> Self {
        rows.sort_by(|a, b| a.bucket.cmp(&b.bucket));
        rows.dedup_by(|a, b| a.bucket == b.bucket);
        Self {
            rows,
            swept: swept.to_owned(),
        }
    }

    /// As a file.
    pub(super) fn text(&self) -> String {
        let swept = &self.swept;
        let mut text = format!(
            "# bucket\tendpoint\tregion\tprovider\tarchive; from CMR collection metadata \
             (DirectDistributionInformation), swept {swept}\n"
        );
        text.extend(self.rows.iter().map(BucketRow::line));
        text
    }

    /// These rows, and those of `other` for buckets that are not among them.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let mut rows = self.rows;
        rows.extend(other.rows);
        // Stable: the row that came first stays first, and the other goes.
        Self::new(rows, &self.swept)
    }

    /// All rows, by the bucket's name.
    pub fn rows(&self) -> &[BucketRow] {
        &self.rows
    }

    /// The day of the sweep, `2026-08-18`.
    #[cfg(any(test, fuzzing))]
    pub(super) fn swept(&self) -> &str {
        &self.swept
    }

    /// The row of `bucket`, if the table knows it.
    pub fn find(&self, bucket: &str) -> Option<&BucketRow> {
        self.rows.iter().find(|row| row.bucket == bucket)
    }

    /// Up to three buckets whose names are nearest to `bucket`, nearest first; those that hold it come before all others,
    /// as it may be half typed.
    pub fn nearest(&self, bucket: &str) -> Vec<&str> {
        let rows = self.rows.iter();
        let mut scored: Vec<_> = rows
            .map(|row| row.bucket.as_str())
            .map(|name| (!name.contains(bucket), edit_distance(bucket, name), name))
            .collect();
        scored.sort();
        scored.into_iter().take(3).map(|(.., name)| name).collect()
    }
}

/// The hosts of NASA that endpoints are on; subdomains only.
const TRUSTED: [&str; 3] = [
    ".earthdata.nasa.gov",
    ".earthdatacloud.nasa.gov",
    ".asf.alaska.edu",
];

/// Whether a login may go to an endpoint that nobody typed.
pub(super) fn is_trusted(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let in_host = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    // As it is written, so that it means the same to whoever reads it next.
    url.as_str() == endpoint
        && url.scheme() == "https"
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        // URLs allow more, which means something to a shell into which the endpoint is pasted.
        && host.len() <= LONGEST_HOST
        && host.bytes().all(in_host)
        && TRUSTED.iter().any(|domain| host.ends_with(domain))
        && url.path() == "/s3credentials"
        && url.query().is_none()
        && url.fragment().is_none()
}

/// S3's rules for the names of buckets.
pub(super) fn is_bucket(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    (3..=63).contains(&name.len())
        && name.chars().all(allowed)
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.'])
}

/// The archive behind the first of CMR's providers, by the name that its users know.
fn archive(provider: &str) -> &str {
    let first = provider.split(',').next().unwrap_or(provider);
    match first {
        "GES_DISC" => "GES DISC",
        "GHRC_DAAC" => "GHRC",
        "LARC_CLOUD" => "ASDC",
        "LPCLOUD" => "LP DAAC",
        "NSIDC_CPRD" => "NSIDC",
        "OB_CLOUD" => "OB.DAAC",
        "ORNL_CLOUD" => "ORNL DAAC",
        "POCLOUD" => "PO.DAAC",
        _ => first,
    }
}

/// The Earthdata Login host for an endpoint: test systems (UAT, SIT) have one of their own.
pub fn login_host_for(endpoint: &str) -> &'static str {
    let host = endpoint.split('/').nth(2).unwrap_or_default();
    if host
        .split('.')
        .any(|label| label == "uat" || label == "sit")
    {
        "uat.urs.earthdata.nasa.gov"
    } else {
        "urs.earthdata.nasa.gov"
    }
}

/// Levenshtein's distance, in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_whole() {
        let text = include_str!("buckets.tsv");
        let table = Table::built_in();
        assert_eq!(table.rows().len(), 36);
        assert_eq!(table.swept(), "2026-08-18");
        for row in table.rows() {
            assert!(text.contains(&row.line()), "{row:?}");
        }
        let again = Table::parse(&table.text());
        assert_eq!(again.rows(), table.rows());
        assert_eq!(again.swept(), table.swept());
    }

    #[test]
    fn known_buckets_and_typing_mistakes() {
        let table = Table::built_in();
        let row = table.find("podaac-ops-cumulus-protected");
        assert_eq!(
            row.expect("in the table").endpoint(),
            "https://archive.podaac.earthdata.nasa.gov/s3credentials"
        );
        assert_eq!(table.find("podaac-ops-cumulus-protectd"), None);
        let near = table.nearest("podaac-ops-cumulus-protectd");
        assert_eq!(near.first(), Some(&"podaac-ops-cumulus-protected"));
        let near = table.nearest("podaac");
        assert!(near.iter().all(|name| name.contains("podaac")), "{near:?}");
    }

    #[test]
    fn test_systems_log_in_elsewhere() {
        let table = Table::built_in();
        let host = |bucket| login_host_for(table.find(bucket).expect("in the table").endpoint());
        assert_eq!(host("ghrcwuat-protected"), "uat.urs.earthdata.nasa.gov");
        assert_eq!(host("ob-cumulus-sit-public"), "uat.urs.earthdata.nasa.gov");
        assert_eq!(host("prod-lads"), "urs.earthdata.nasa.gov");
    }

    #[test]
    fn a_login_goes_to_https_on_nasas_hosts_only() {
        for good in [
            "https://archive.podaac.earthdata.nasa.gov/s3credentials",
            "https://data.nsidc.earthdatacloud.nasa.gov/s3credentials",
            "https://cumulus.asf.alaska.edu/s3credentials",
        ] {
            assert!(is_trusted(good), "{good}");
        }
        for bad in [
            "http://archive.podaac.earthdata.nasa.gov/s3credentials",
            "https://earthdata.nasa.gov.example.org/s3credentials",
            "https://evil-earthdata.nasa.gov/s3credentials",
            "https://example.org/.earthdata.nasa.gov/s3credentials",
            "https://x.earthdata.nasa.gov@example.org/s3credentials",
            "https://user@x.earthdata.nasa.gov/s3credentials",
            "https://x.earthdata.nasa.gov:8443/s3credentials",
            "https://x.earthdata.nasa.gov/s3credentials?to=https://example.org",
            "https://x.earthdata.nasa.gov/redirect",
            "https://x$y;z.earthdata.nasa.gov/s3credentials",
            "https://example.org\\.earthdata.nasa.gov/s3credentials",
            "https://x.earthdata.nasa.gov/s3credentials\t",
            "s3://bucket/s3credentials",
            "www.testexample.com",
            "",
        ] {
            assert!(!is_trusted(bad), "{bad}");
        }
    }

    /// Found by fuzzing: a row is shown in a line.
    #[test]
    fn a_row_that_is_too_long_to_be_one_is_left_out() {
        let row = |host: usize, provider: usize| {
            let host = format!("{}.earthdata.nasa.gov", "x".repeat(host));
            let endpoint = format!("https://{host}/s3credentials");
            BucketRow::new("bucket", &endpoint, "us-west-2", &"P".repeat(provider))
        };
        assert!(row(63, 100).is_some());
        assert!(row(63, 101).is_none() && row(63, 0).is_none() && row(1000, 7).is_none());
    }

    #[test]
    fn a_row_that_sends_the_login_elsewhere_is_left_out_of_a_file() {
        let text = "# swept 2026-11-24\n\
                    good-one\thttps://x.earthdata.nasa.gov/s3credentials\tus-west-2\tPOCLOUD\tPO.DAAC\n\
                    bad-one\thttps://example.org/s3credentials\tus-west-2\tPOCLOUD\tPO.DAAC\n\
                    short\thttps://x.earthdata.nasa.gov/s3credentials\n\
                    prod-lads\thttps://y.earthdata.nasa.gov/s3credentials\tus-east-1\tLAADS\tLAADS\n";
        let table = Table::parse(text);
        let names = |table: &Table| {
            let rows = table.rows().iter();
            rows.map(|row| row.bucket().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&table), ["good-one", "prod-lads"]);
        let both = table.or(Table::built_in());
        assert_eq!(both.rows().len(), 37);
        assert_eq!(both.swept(), "2026-11-24");
        let row = both.find("prod-lads").expect("in both");
        assert_eq!(row.region(), "us-east-1", "the first table wins");
    }
}
