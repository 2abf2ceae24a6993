//! The first bytes of an object of which no more than the name is known.

use bytes::Bytes;

use super::client::S3;
use super::error::{Error, Failure};
use super::types::{ByteRange, ETag};
use crate::request::Request;

/// The first bytes of a version, which their answer names.
#[derive(Debug)]
pub struct FirstBytes {
    /// The version that they are of.
    pub etag: ETag,
    /// As many as were asked for, or the whole object.
    pub bytes: Bytes,
}

impl S3 {
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
        let get = |_| async {
            let get = self.client.get_object().bucket(&self.bucket).key(key);
            let answer = get.range(range.to_string()).send().await;
            let answer = answer.map_err(|e| Failure::from_sdk(&e, false))?;
            let etag = answer.e_tag().map(ETag::from);
            let etag = etag.ok_or_else(|| Failure::Transient("a GET without ETag".to_owned()))?;
            let broken = |e: aws_sdk_s3::primitives::ByteStreamError| {
                Failure::Transient(format!("a body broke off: {e}"))
            };
            let bytes = answer.body.collect().await.map_err(broken)?.into_bytes();
            Ok(FirstBytes { etag, bytes })
        };
        Ok(self.retried(request, get).await?.0)
    }
}
