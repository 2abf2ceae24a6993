//! What to mount: a bucket, or a part of one.

use std::fmt;
use std::str::FromStr;

/// `BUCKET`, `BUCKET/PREFIX` or `s3://BUCKET/PREFIX`, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    bucket: String,
    /// Empty, or ends in `/`.
    prefix: String,
}

impl Source {
    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Keys below the mount begin with this: empty, or ends in `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix("s3://").unwrap_or(text);
        let (bucket, prefix) = bare.split_once('/').unwrap_or((bare, ""));
        check_bucket(bucket).map_err(|why| {
            format!(
                "{text:?} is not something to mount: {why}. It looks like BUCKET, BUCKET/PREFIX or \
                 s3://BUCKET/PREFIX"
            )
        })?;
        let prefix = prefix.trim_end_matches('/');
        if prefix.split('/').any(|part| part == ".." || part == ".")
            || prefix.chars().any(char::is_control)
        {
            return Err(format!("{text:?} has a prefix that no path can say"));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: match prefix {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            },
        })
    }
}

/// The naming rules of S3, with the upper case and underscores that old buckets and other servers
/// have. What passes cannot inject options into mount(2) or another host into a URL.
fn check_bucket(bucket: &str) -> Result<(), &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if bucket.is_empty() {
        Err("the bucket's name is missing")
    } else if !(3..=255).contains(&bucket.len()) {
        Err("a bucket's name has 3 to 63 characters, and up to 255 if it is an old one")
    } else if !bucket.chars().all(allowed) {
        Err("a bucket's name has letters, digits, dots and hyphens only")
    } else if !bucket.starts_with(|c: char| c.is_ascii_alphanumeric()) || bucket.contains("..") {
        Err("a bucket's name begins with a letter or digit, and has no two dots in a row")
    } else {
        Ok(())
    }
}

/// As a URL; commas would inject options into mount(2), so they are encoded.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.prefix.trim_end_matches('/').replace(',', "%2C");
        match prefix.as_str() {
            "" => write!(f, "s3://{}", self.bucket),
            prefix => write!(f, "s3://{}/{prefix}", self.bucket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let parsed = |text: &str| {
            let source: Source = text.parse().expect(text);
            (source.bucket, source.prefix)
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(parsed("prod-lads"), pair("prod-lads", ""));
        assert_eq!(parsed("prod-lads/"), pair("prod-lads", ""));
        assert_eq!(parsed("prod-lads/VNP03IMG"), pair("prod-lads", "VNP03IMG/"));
        assert_eq!(parsed("s3://prod-lads/a/b//"), pair("prod-lads", "a/b/"));
        for bad in [
            "",
            "s3://",
            "/x",
            "ab",
            "-abc",
            "a,b=c",
            "bucket name",
            "a..b",
            "https://x/y",
            "bucket/../x",
            "bucket/\n",
        ] {
            assert!(bad.parse::<Source>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_comma_reaches_the_mount_table() {
        let source: Source = "bucket/a,allow_other".parse().expect("valid");
        assert_eq!(source.prefix(), "a,allow_other/");
        assert_eq!(source.to_string(), "s3://bucket/a%2Callow_other");
    }
}
