//! The one GET of bytes.

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::client::S3;
use super::error::{Error, Failure};
use super::pace::whole;
use super::retry::Attempt;
use super::send::{Method, path};
use super::types::{ByteRange, ETag};
use crate::request::Request;

/// The first bytes of an object of which no more than the name was known.
#[derive(Debug)]
pub struct FirstBytes {
    /// The version that they are of.
    pub etag: ETag,
    /// As many as were asked for, or the whole object.
    pub bytes: Bytes,
}

impl S3 {
    /// Sends one GET. What comes is the answer to just this: the version, and the range.
    pub(super) async fn get(
        &self,
        key: &str,
        etag: &ETag,
        range: ByteRange,
        attempt: &Attempt,
    ) -> Result<ByteStream, Failure> {
        let asked = range.to_string();
        let headers = [("range", asked.as_str()), ("if-match", etag.as_str())];
        let target = path(key);
        let answer = self.sender.send(Method::Get, &target, &headers, attempt);
        let answer = answer.await?;
        if answer.status().as_u16() != 206 {
            let text = format!("asked for {range}, got all of it");
            return Err(Failure::Transient(text));
        }
        match answer.headers().get("etag") {
            None => return Err(Failure::Transient("a GET without ETag".to_owned())),
            Some(got) if got != etag.as_str() => return Err(Failure::changed()),
            Some(_) => {}
        }
        let expected = format!("bytes {}-{}/", range.start(), range.end() - 1);
        let got = answer.headers().get("content-range").unwrap_or_default();
        if !got.starts_with(&expected) {
            let text = format!("asked for {range}, got {got:?}");
            return Err(Failure::Transient(text));
        }
        Ok(ByteStream::new(answer.into_body()))
    }

    /// The first `len` bytes of whatever version `key` has now; `len` is not 0.
    ///
    /// # Errors
    /// As S3 says; an empty object has no first bytes, which is an error, too.
    pub async fn get_first(
        &self,
        key: &str,
        len: u64,
        request: &Request,
    ) -> Result<FirstBytes, Error> {
        let range = ByteRange::new(0, len).ok_or(Error::NotFound)?;
        tracing::trace!(key, ?range, "GET");
        let (target, asked) = (path(key), range.to_string());
        let get = async |attempt: Attempt| {
            let headers = [("range", asked.as_str())];
            let answer = self.sender.send(Method::Get, &target, &headers, &attempt);
            let answer = answer.await?;
            let etag = answer.headers().get("etag").map(ETag::from);
            let etag = etag.ok_or_else(|| Failure::Transient("a GET without ETag".to_owned()))?;
            let most = usize::try_from(len).unwrap_or(usize::MAX);
            let bytes = whole(answer.into_body(), most, attempt.patience).await?;
            Ok(FirstBytes {
                etag,
                bytes: bytes.into(),
            })
        };
        Ok(self.retried(request, get).await?.0)
    }
}
