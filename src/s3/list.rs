//! ListObjectsV2, a page at a time.

use std::borrow::Cow;

use aws_sdk_s3::types::{EncodingType, ObjectStorageClass, OptionalObjectAttributes};

use super::client::{S3, system_time};
use super::error::{Error, Failure};
use super::types::{ETag, ObjectMeta, Storage};
use crate::request::Request;

/// Where a listing begins.
#[derive(Clone, Copy, Debug)]
pub enum From<'a> {
    /// At the prefix.
    Start,
    /// Behind this key. If it lies inside a common prefix, that prefix is listed again.
    After(&'a str),
    /// Where the page ended that gave this token.
    Token(&'a str),
}

/// What to list.
#[derive(Clone, Copy, Debug)]
pub struct ListQuery<'a> {
    /// Only keys that begin with this.
    pub prefix: &'a str,
    /// Whether keys with a further `/` are gathered into common prefixes.
    pub delimited: bool,
    /// Where to begin.
    pub from: From<'a>,
    /// 1 to 1,000.
    pub max_keys: u16,
}

/// One object of a page.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The whole key.
    pub key: String,
    /// Its version.
    pub meta: ObjectMeta,
}

/// A page of a listing; both lists ascend by bytes.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Listed>,
    /// The common prefixes, each with its final `/`.
    pub prefixes: Vec<String>,
    /// Whether and where there is more.
    pub next_token: Option<String>,
}

impl Page {
    /// The last key or common prefix in order, if the page has any.
    pub fn last(&self) -> Option<&str> {
        let object = self.objects.last().map(|o| o.key.as_str());
        object.max(self.prefixes.last().map(String::as_str))
    }
}

impl S3 {
    /// Lists one page.
    ///
    /// # Errors
    /// [`Error::Protocol`] where the answer contradicts the query; the others as S3 says.
    pub async fn list(&self, query: ListQuery<'_>, request: &Request) -> Result<Page, Error> {
        tracing::trace!(?query, "LIST");
        let send = |_| async {
            let mut list = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(query.prefix)
                .max_keys(i32::from(query.max_keys))
                // A control character in one key would break the XML of the whole page.
                .encoding_type(EncodingType::Url)
                .optional_object_attributes(OptionalObjectAttributes::RestoreStatus);
            if query.delimited {
                list = list.delimiter("/");
            }
            list = match query.from {
                From::Start => list,
                From::After(key) => list.start_after(key),
                From::Token(token) => list.continuation_token(token),
            };
            let answer = list.send().await;
            let answer = answer.map_err(|e| Failure::from_sdk(&e, false))?;
            let encoded = answer.encoding_type() == Some(&EncodingType::Url);
            let mut page = Page::default();
            for object in answer.contents() {
                let size = object.size().and_then(|n| u64::try_from(n).ok());
                let (Some(key), Some(size), Some(etag)) = (object.key(), size, object.e_tag())
                else {
                    return Err(Failure::Transient("a list entry lacks a field".to_owned()));
                };
                page.objects.push(Listed {
                    key: decode(key, encoded)?,
                    meta: ObjectMeta {
                        size,
                        etag: ETag::from(etag),
                        last_modified: system_time(object.last_modified()),
                        storage: Storage::new(
                            object.storage_class().map(ObjectStorageClass::as_str),
                            object
                                .restore_status()
                                .is_some_and(|restore| restore.restore_expiry_date().is_some()),
                        ),
                    },
                });
            }
            for prefix in answer.common_prefixes() {
                let prefix = prefix.prefix().unwrap_or_default();
                page.prefixes.push(decode(prefix, encoded)?);
            }
            if answer.is_truncated() == Some(true) {
                let token = answer.next_continuation_token();
                let token = token.ok_or_else(|| Failure::Transient("no token".to_owned()))?;
                page.next_token = Some(token.to_owned());
            }
            check(&page, &query)?;
            Ok(page)
        };
        Ok(self.retried(request, send).await?.0)
    }
}

/// S3 encodes as HTML forms do: `+` is a blank.
fn decode(text: &str, encoded: bool) -> Result<String, Failure> {
    if !encoded {
        return Ok(text.to_owned());
    }
    let spaced = if text.contains('+') {
        Cow::Owned(text.replace('+', " "))
    } else {
        Cow::Borrowed(text)
    };
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    let decoded = decoded
        .map_err(|_| Failure::Final(Error::Protocol("a listed key is not UTF-8".to_owned())))?;
    Ok(decoded.into_owned())
}

/// What is built on a listing (names known to be absent) is wrong if it is out of order or holds
/// what was not asked for.
fn check(page: &Page, query: &ListQuery<'_>) -> Result<(), Failure> {
    let keys = || page.objects.iter().map(|o| o.key.as_str());
    let prefixes = || page.prefixes.iter().map(String::as_str);
    let after = match query.from {
        From::After(key) => key,
        From::Start | From::Token(_) => "",
    };
    let wrong = if !keys().is_sorted_by(|a, b| a < b) || !prefixes().is_sorted_by(|a, b| a < b) {
        "out of order"
    } else if keys()
        .chain(prefixes())
        .any(|k| !k.starts_with(query.prefix))
    {
        "outside the prefix"
    } else if keys().any(|k| !after.is_empty() && k <= after) {
        "before its start"
    } else if page.next_token.is_some() && page.last().is_none() {
        "empty and not the last"
    } else {
        return Ok(());
    };
    Err(Failure::Final(Error::Protocol(format!(
        "a list that is {wrong}"
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_as_forms() {
        let decoded = |text| decode(text, true).expect("UTF-8");
        assert_eq!(decoded("a+b%2Bc%0A%C3%A9/d"), "a b+c\né/d");
        assert_eq!(decode("a+b%20", false).expect("as it is"), "a+b%20");
        assert!(decode("%FF", true).is_err());
    }
}
