//! The answer to a ListObjectsV2 (Amazon S3 API Reference), as far as it is of use here.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

use super::types::{ETag, ObjectMeta, Storage};

/// A `ListBucketResult`. Keys are as they came.
#[derive(Debug, Default)]
pub(super) struct ListBucketResult {
    pub(super) contents: Vec<(String, ObjectMeta)>,
    pub(super) common_prefixes: Vec<String>,
    pub(super) is_truncated: bool,
    pub(super) next_token: Option<String>,
    pub(super) is_url_encoded: bool,
}

/// One `Contents`.
#[derive(Default)]
struct Contents {
    key: Option<String>,
    size: Option<u64>,
    etag: Option<ETag>,
    last_modified: Option<SystemTime>,
    class: Option<String>,
    is_restored: bool,
}

/// Reads the document.
///
/// # Errors
/// Why it cannot be read: no XML, another document, cut, or an object that lacks something.
pub(super) fn parse(xml: &[u8]) -> Result<ListBucketResult, String> {
    let mut reader = Reader::from_reader(xml);
    let mut result = ListBucketResult::default();
    let mut object = Contents::default();
    let mut text = String::new();
    let mut depth = 0;
    // Whether the element at depth 2 is one of these.
    let (mut in_contents, mut in_prefixes) = (false, false);
    let mut is_whole = false;
    loop {
        match reader.read_event().map_err(|e| e.to_string())? {
            Event::Start(start) => {
                depth += 1;
                text.clear();
                match (depth, start.local_name().as_ref()) {
                    (1, b"ListBucketResult") => {}
                    (1, _) => return Err("another document than a list".to_owned()),
                    (2, name) => {
                        in_contents = name == b"Contents";
                        in_prefixes = name == b"CommonPrefixes";
                    }
                    _ => {}
                }
            }
            Event::Text(more) => text.push_str(&more.decode().map_err(|e| e.to_string())?),
            Event::CData(more) => text.push_str(&more.decode().map_err(|e| e.to_string())?),
            Event::GeneralRef(reference) => text.push_str(&resolve(&reference)?),
            Event::End(end) => {
                let name = end.local_name();
                match (depth, name.as_ref()) {
                    (1, _) => is_whole = true,
                    (2, b"Contents") => result.contents.push(std::mem::take(&mut object).read()?),
                    (2, b"IsTruncated") => result.is_truncated = text == "true",
                    (2, b"NextContinuationToken") => result.next_token = Some(text.clone()),
                    (2, b"EncodingType") => result.is_url_encoded = text == "url",
                    (3, b"Prefix") if in_prefixes => result.common_prefixes.push(text.clone()),
                    (3.., name) if in_contents => object.field(name, &text),
                    _ => {}
                }
                text.clear();
                depth -= 1;
            }
            Event::Eof if is_whole => return Ok(result),
            Event::Eof => return Err("it is cut".to_owned()),
            // `<Prefix/>` and the like say nothing; declarations and comments neither.
            _ => {}
        }
    }
}

/// What `&...;` stands for.
pub(super) fn resolve(reference: &BytesRef<'_>) -> Result<String, String> {
    if let Some(character) = reference.resolve_char_ref().map_err(|e| e.to_string())? {
        return Ok(character.to_string());
    }
    let name = reference.decode().map_err(|e| e.to_string())?;
    let known = quick_xml::escape::resolve_predefined_entity(&name);
    known.map_or_else(
        || Err(format!("an entity &{name};")),
        |text| Ok(text.to_owned()),
    )
}

impl Contents {
    fn field(&mut self, name: &[u8], text: &str) {
        match name {
            b"Key" => self.key = Some(text.to_owned()),
            b"Size" => self.size = text.parse().ok(),
            b"ETag" => self.etag = Some(ETag::from(text)),
            b"LastModified" => self.last_modified = time(text),
            b"StorageClass" => self.class = Some(text.to_owned()),
            b"RestoreExpiryDate" => self.is_restored = true,
            _ => {}
        }
    }

    fn read(self) -> Result<(String, ObjectMeta), String> {
        let (Some(key), Some(size), Some(etag)) = (self.key, self.size, self.etag) else {
            return Err("an object without key, size or ETag".to_owned());
        };
        let meta = ObjectMeta {
            size,
            etag,
            last_modified: self.last_modified.unwrap_or(SystemTime::UNIX_EPOCH),
            storage: Storage::new(self.class.as_deref(), self.is_restored),
        };
        Ok((key, meta))
    }
}

/// `2021-01-27T00:50:09.000Z` in whole seconds; before 1970 there was no S3.
fn time(text: &str) -> Option<SystemTime> {
    let seconds = text.parse::<Timestamp>().ok()?.as_second();
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After the example in the API reference, and what else S3 is known to answer.
    const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix>a/</Prefix>
<KeyCount>3</KeyCount><MaxKeys>1000</MaxKeys><Delimiter>%2F</Delimiter><EncodingType>url</EncodingType>
<IsTruncated>true</IsTruncated><NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken>
  <Contents><Key>a/my-image+1.jpg</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>
    <ETag>&quot;fba9dede5f27731c9771645a39863328&quot;</ETag><Size>434234</Size>
    <StorageClass>STANDARD</StorageClass><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>
    <Owner><ID>1</ID><DisplayName>Key</DisplayName></Owner></Contents>
  <Contents><Key>a/&amp;&#x26;</Key><LastModified>2020-01-01T00:00:00Z</LastModified><ETag>"x"</ETag>
    <Size>0</Size><StorageClass>GLACIER</StorageClass>
    <RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>
      <RestoreExpiryDate>2026-12-01T00:00:00Z</RestoreExpiryDate></RestoreStatus></Contents>
  <Contents><Key>a/z</Key><ETag>"y"</ETag><Size>1</Size><StorageClass>DEEP_ARCHIVE</StorageClass></Contents>
  <CommonPrefixes><Prefix>a/b/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>a/c/</Prefix></CommonPrefixes>
</ListBucketResult>"#;

    #[test]
    fn a_list_is_read() {
        let list = parse(XML.as_bytes()).expect("a list");
        assert!(list.is_truncated && list.is_url_encoded);
        let token = list.next_token.as_deref().expect("a token");
        assert!(token.starts_with("1ueGcx") && token.ends_with("Hy4vbOwM="));
        assert_eq!(list.common_prefixes, ["a/b/", "a/c/"]);
        let keys: Vec<_> = list.contents.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["a/my-image+1.jpg", "a/&&", "a/z"]);
        let meta = |i: usize| &list.contents[i].1;
        assert_eq!(
            meta(0).etag.to_string(),
            "\"fba9dede5f27731c9771645a39863328\""
        );
        assert_eq!(meta(0).size, 434_234);
        let since = meta(0).last_modified.duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(since.expect("later").as_secs(), 1_255_369_830);
        assert!(!meta(0).storage.is_archived() && meta(2).storage.is_archived());
        assert!(!meta(1).storage.is_archived(), "restored");
        assert_eq!(meta(1).storage.class(), "GLACIER");
    }

    #[test]
    fn wherever_it_is_cut_it_is_no_list() {
        for end in 0..XML.len() - 1 {
            assert!(parse(&XML.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [
            "",
            "busy",
            "<html><body>Welcome</body></html>",
            "<ListBucketResult><Contents><Key>a</Key><Size>x</Size><ETag>e</ETag></Contents></ListBucketResult>",
            "<ListBucketResult><Name>&bomb;</Name></ListBucketResult>",
            "<ListBucketResult></Name></ListBucketResult>",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let empty = parse(b"<ListBucketResult/>");
        assert!(empty.is_err(), "S3 says more than that");
    }
}
