//! The GETs of bytes: of a part, of a whole object, and by name.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::checksum::{self, Checksum};
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
        let (asked, etag_text) = (range.to_string(), etag.to_string());
        let headers = [("range", asked.as_str()), ("if-match", &etag_text)];
        let target = path(key);
        let answer = self.sender.send(Method::Get, &target, &headers, attempt);
        let answer = answer.await?;
        if answer.status().as_u16() != 206 {
            let text = format!("asked for {range}, got all of it");
            return Err(Failure::Transient(text));
        }
        check_version(&answer, etag)?;
        let got = answer.headers().get("content-range").unwrap_or_default();
        check_range(got, range, range.len())?;
        Ok(ByteStream::new(answer.into_body()))
    }

    /// Sends one GET for all `size` bytes, and for their checksum, which comes if it can be compared. There is no
    /// range in it: only then it is written down what S3 says of checksums, and some servers say
    /// nothing of them where there is a range.
    pub(super) async fn get_all(
        &self,
        key: &str,
        etag: &ETag,
        size: u64,
        attempt: &Attempt,
    ) -> Result<(ByteStream, Option<Checksum>), Failure> {
        let etag_text = etag.to_string();
        let headers = [("if-match", etag_text.as_str()), checksum::ASK];
        let target = path(key);
        let answer = self.sender.send(Method::Get, &target, &headers, attempt);
        let answer = answer.await?;
        let status = answer.status().as_u16();
        if status != 200 {
            let text = format!("asked for all of an object, got HTTP {status}");
            return Err(Failure::Transient(text));
        }
        check_version(&answer, etag)?;
        let length = answer.headers().get("content-length");
        if let Some(length) = length.filter(|length| length.parse() != Ok(size)) {
            let text = format!("asked for {size} bytes, got {length:?}");
            return Err(Failure::Transient(text));
        }
        let checksum = Checksum::of_whole(|name| answer.headers().get(name));
        Ok((ByteStream::new(answer.into_body()), checksum))
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
            let headers = [("range", asked.as_str()), checksum::ASK];
            let headers = &headers[..if self.compares { 2 } else { 1 }];
            let send = || self.sender.send(Method::Get, &target, headers, &attempt);
            let answer = self.hedged(&self.hedges.gets, request, send).await?;
            let is_all = answer.status().as_u16() == 200;
            let got = answer.headers().get("content-range");
            let got = got.unwrap_or_default().to_owned();
            let checksum = Checksum::of_whole(|name| answer.headers().get(name));
            // Some servers say it unasked.
            let checksum = checksum.filter(|_| self.compares);
            let etag = answer.headers().get("etag").map(ETag::from);
            let etag = etag.ok_or_else(|| Failure::Transient("a GET without ETag".to_owned()))?;
            let most = usize::try_from(len).unwrap_or(usize::MAX);
            let bytes = whole(answer.into_body(), most, attempt.patience).await?;
            let size = bytes.len() as u64;
            if !is_all {
                check_range(&got, range, size)?;
            }
            let is_all = is_all
                || got
                    .split_once('/')
                    .is_some_and(|(_, of)| of == size.to_string());
            if let Some(mut checksum) = checksum.filter(|_| is_all) {
                checksum.update(&bytes);
                let compared = self.compared.compare(checksum, key);
                // Whoever needs these bytes asks for them again.
                let wrong = |algorithm| Error::WrongBytes(self.sender.place(key), algorithm, 1);
                compared.map_err(|algorithm| Failure::Final(wrong(algorithm)))?;
            }
            Ok(FirstBytes {
                etag,
                bytes: bytes.into(),
            })
        };
        Ok(self.retried(request, get).await?.0)
    }
}

/// Whether an answer whose Content-Range is `got` is of the first `len` bytes of the range that was asked for.
fn check_range(got: &str, asked: ByteRange, len: u64) -> Result<(), Failure> {
    let first = asked.start();
    let expected = format!("bytes {first}-{}/", (first + len).wrapping_sub(1));
    match got.starts_with(&expected) {
        true => Ok(()),
        false => Err(Failure::Transient(format!(
            "asked for {asked}, got {got:?}"
        ))),
    }
}

/// Whether the answer is of the version that was asked for.
fn check_version(answer: &HttpResponse, etag: &ETag) -> Result<(), Failure> {
    match answer.headers().get("etag") {
        None => Err(Failure::Transient("a GET without ETag".to_owned())),
        Some(got) if ETag::from(got) != *etag => Err(Failure::changed()),
        Some(_) => Ok(()),
    }
}
