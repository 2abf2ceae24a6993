//! What requests are for, and what it means when S3 refuses them.

use super::Source;
use crate::credentials;
use crate::network;
use crate::request::Request;
use crate::s3::{self, ListFrom, ListQuery, Page, S3};

/// A bucket, or a part of one, with how it is got at.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// What.
    pub source: &'a Source,
    /// Where.
    pub s3: &'a s3::Settings,
    /// With what; `None` for unsigned requests.
    pub credentials: Option<&'a credentials::Settings>,
}

impl Target<'_> {
    /// Lists its first keys, up to `max_keys`.
    ///
    /// # Errors
    /// As S3 says.
    pub async fn first_keys(
        &self,
        s3: &S3,
        max_keys: u16,
        request: &Request,
    ) -> Result<Page, s3::Error> {
        let query = ListQuery {
            prefix: self.source.prefix(),
            delimited: false,
            from: ListFrom::Start,
            max_keys,
        };
        s3.list(query, request).await
    }

    /// What was named, as a key: `BUCKET/PREFIX` may be the name of a file.
    pub fn key(&self) -> Option<&str> {
        self.source.prefix().strip_suffix('/')
    }

    /// Whether what was named is a file.
    pub async fn is_file(&self, s3: &S3, request: &Request) -> bool {
        match self.key() {
            Some(key) => s3.head(key, request).await.is_ok(),
            None => false,
        }
    }

    /// What to do where nothing lies below what was named; `None` for a bucket, which may be empty.
    pub fn misnamed(&self, is_file: bool) -> Option<String> {
        let (key, bucket) = (self.key()?, self.source.bucket());
        if !is_file {
            return Some(format!(
                " below it. Check how the prefix is written, also upper and lower case; {bucket} \
                 alone is all of the bucket"
            ));
        }
        let holder = key.rsplit_once('/').map_or_else(
            || bucket.to_owned(),
            |(directory, _)| format!("{bucket}/{directory}"),
        );
        Some(format!(
            " below it, as it is a file itself. Name what it lies in: {holder}"
        ))
    }

    /// Bucket, server and region, for messages.
    pub fn location(&self) -> String {
        let server = self.s3.endpoint_url.as_ref();
        let server = server.map_or("AWS S3", |url| url.as_str());
        format!("{} at {server}, region {}", self.source, self.s3.region)
    }

    /// Why S3 may deny a listing, see [`Self::reasons`].
    pub fn reasons_of_listing(&self, machine: Option<&str>) -> String {
        let reasons = self.reasons(machine);
        match self.source.prefix() {
            "" => format!(
                "{reasons}; the listing may be allowed below a prefix only (mount BUCKET/PREFIX)"
            ),
            prefix => format!("{reasons}; the listing may not be allowed below {prefix}"),
        }
    }

    /// Why S3 may deny what credentials were granted for, the likeliest first, if this machine is in
    /// the region `machine`. S3's answer does not tell these apart (nsidc/earthaccess issues 231, 444,
    /// 1184).
    pub fn reasons(&self, machine: Option<&str>) -> String {
        let Some(credentials) = self.credentials else {
            return "requests are not signed (--no-sign-request), and this bucket may not be public: leave \
                    that option out"
                .to_owned();
        };
        let region = &self.s3.region;
        let place = match machine {
            Some(machine) if machine == region => {
                format!("the region is not the reason, since this machine is in {region}, too")
            }
            Some(machine) => format!(
                "this machine is in {machine}, and NASA lets {region} only be read from within: run \
                 this there"
            ),
            None => format!(
                "NASA lets {region} only be read from within, and where this machine is cannot be \
                 learned (EC2's instance metadata do not answer)"
            ),
        };
        let endpoint = &credentials.endpoint.endpoint;
        format!(
            "{place}; some data need a user agreement (EULA), to be accepted in a browser; the \
             credentials of {endpoint} may not be for this bucket (--credentials-endpoint)"
        )
    }
}

/// How S3 says that a clock is wrong.
const TIME: &str = "RequestTimeTooSkewed";

/// What to do about an error of S3; begins with a full stop unless empty.
pub fn hint(error: &s3::Error) -> String {
    let to_do = match error {
        s3::Error::NoSuchBucket => "Check its name, --region and --endpoint-url",
        // To a list, S3 says that there is no such bucket, and no more.
        s3::Error::NotFound => "Is this an S3 server? Check --endpoint-url",
        s3::Error::Unavailable(why) | s3::Error::Late(why) if why.starts_with(TIME) => {
            "Check the clock of this machine (timedatectl)"
        }
        error if error.is_failure_of_server() => "This is the server's trouble: try again later",
        s3::Error::Unavailable(why) | s3::Error::Late(why) => {
            network::what_to_check(why).unwrap_or("Check the network, --endpoint-url and --region")
        }
        s3::Error::TimedOut => "Check the network, --endpoint-url and --region",
        s3::Error::CredentialsRejected(_) => "Check --credentials-endpoint",
        _ => return String::new(),
    };
    format!(". {to_do}")
}
