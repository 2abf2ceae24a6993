//! ListObjectsV2 in plain XML: the listings of the lean mode, and the broken ones of the script.

use std::fmt::Write as _;

use hyper::StatusCode;

use super::hostile;
use super::objects::{etag, storage_class};
use super::refused::Refused;
use super::urlencode::encode;
use crate::clock;
use crate::faults::Fault;
use crate::login::Query;
use crate::script::{Hit, fires};
use crate::store::{After, Holding, Page, PageRequest};

/// S3 lists no more than this at a time, whatever is asked.
pub(crate) const MAX_KEYS: i32 = 1000;

/// What a page of HTML says instead of XML: as a proxy would.
const HTML: &str =
    "<!DOCTYPE html><html><head><title>Welcome</title><body><p>Please log in &nbsp;<br></html>\n";

/// The parameters of a listing.
#[derive(Debug)]
pub(crate) struct Listing {
    bucket: String,
    prefix: String,
    delimiter: Option<String>,
    start_after: Option<String>,
    token: Option<String>,
    max_keys: i32,
    /// `encoding-type=url`
    url: bool,
}

/// A listing as it goes out.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) xml: String,
    pub(crate) content_type: &'static str,
    /// Keys and common prefixes.
    pub(crate) entries: u32,
}

impl Listing {
    /// Reads a query; what is wrong in it counts as not said.
    pub(crate) fn parse(bucket: &str, query: &str) -> Self {
        let query = Query::parse(query);
        let said = |name: &str| query.get(name).map(str::to_owned);
        let max_keys = query.get("max-keys").and_then(|text| text.parse().ok());
        Self {
            bucket: bucket.to_owned(),
            prefix: said("prefix").unwrap_or_default(),
            delimiter: said("delimiter").filter(|delimiter| !delimiter.is_empty()),
            start_after: said("start-after").filter(|key| !key.is_empty()),
            token: said("continuation-token"),
            max_keys: max_keys.unwrap_or(MAX_KEYS).clamp(0, MAX_KEYS),
            url: query.get("encoding-type") == Some("url"),
        }
    }

    fn after(&self) -> Option<After> {
        match (&self.token, &self.start_after) {
            (Some(token), _) => After::from_token(token),
            (None, Some(key)) => Some(After::Key(key.clone())),
            (None, None) => Some(After::Nothing),
        }
    }

    /// The page of a bucket, with the fault that it is in for.
    pub(crate) fn answer(&self, holding: &Holding, hit: Option<&Hit>) -> Result<Listed, Refused> {
        if !holding.may_list(&self.prefix) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "AccessDenied"));
        }
        let after = self
            .after()
            .ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, "InvalidArgument"))?;
        let page = holding.page(&PageRequest {
            prefix: &self.prefix,
            delimiter: self.delimiter.as_deref(),
            after: after.clone(),
            max: usize::try_from(self.max_keys).unwrap_or(0),
        });
        Ok(self.broken(page, &after, hit))
    }

    fn broken(&self, mut page: Page, after: &After, hit: Option<&Hit>) -> Listed {
        if let Some(hit) = hit {
            match hit.fault() {
                Fault::EmptyPage => {
                    hit.fires();
                    page = Page {
                        next: Some(After::Again(Box::new(after.clone()))),
                        ..Page::default()
                    };
                }
                Fault::RepeatToken => {
                    hit.fires();
                    page.next = Some(after.clone());
                }
                Fault::LoopToken if *after != After::Nothing || page.next.is_none() => {
                    hit.fires();
                    page.next = Some(After::Nothing);
                }
                Fault::Unordered if page.objects.len() > 1 || page.prefixes.len() > 1 => {
                    hit.fires();
                    page.objects.reverse();
                    page.prefixes.reverse();
                }
                Fault::HostileKeys | Fault::HostileFields => page.next = None,
                _ => {}
            }
        }
        let mut listed = Listed {
            entries: u32::try_from(page.objects.len() + page.prefixes.len()).unwrap_or(0),
            xml: String::new(),
            content_type: "application/xml",
        };
        if fires(hit, &Fault::NotXml) {
            HTML.clone_into(&mut listed.xml);
            listed.content_type = "text/html";
            return listed;
        }
        let entries = if fires(hit, &Fault::HostileKeys) {
            listed.entries = hostile::ENTRIES as u32;
            hostile::keys(&self.prefix, self.url)
        } else if fires(hit, &Fault::HostileFields) {
            listed.entries = hostile::FIELDS.len() as u32;
            hostile::fields(&self.prefix, self.url)
        } else {
            self.entries(&page, hit)
        };
        listed.xml = self.document(&page, listed.entries, &entries);
        if fires(hit, &Fault::CutXml) {
            let mut cut = listed.xml.len() / 2;
            while !listed.xml.is_char_boundary(cut) {
                cut -= 1;
            }
            listed.xml.truncate(cut);
        }
        listed
    }

    fn entries(&self, page: &Page, hit: Option<&Hit>) -> String {
        let mut xml = String::with_capacity(300 * page.objects.len());
        for (key, object) in &page.objects {
            let (key, modified) = (text(key, self.url), clock::xml_time(object.modified));
            let _ = write!(
                xml,
                "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified>"
            );
            if let Some(etag) = etag(object, hit) {
                let _ = write!(xml, "<ETag>&quot;{etag}&quot;</ETag>");
            }
            let _ = write!(
                xml,
                "<Size>{}</Size><StorageClass>{}</StorageClass></Contents>",
                object.size,
                storage_class(object)
            );
        }
        for prefix in &page.prefixes {
            let prefix = text(prefix, self.url);
            let _ = write!(
                xml,
                "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"
            );
        }
        xml
    }

    fn document(&self, page: &Page, count: u32, entries: &str) -> String {
        let mut xml = String::with_capacity(1024 + entries.len());
        xml.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        xml.push_str("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        let said = |value: &Option<String>| value.as_deref().map(|value| text(value, self.url));
        let optional = [
            ("Name", Some(self.bucket.clone())),
            ("Prefix", Some(text(&self.prefix, self.url))),
            ("Delimiter", said(&self.delimiter)),
            ("StartAfter", said(&self.start_after)),
            ("EncodingType", self.url.then(|| "url".to_owned())),
            (
                "ContinuationToken",
                self.token.as_deref().map(|token| text(token, false)),
            ),
            ("KeyCount", Some(count.to_string())),
            ("MaxKeys", Some(self.max_keys.to_string())),
            ("IsTruncated", Some(page.next.is_some().to_string())),
            (
                "NextContinuationToken",
                page.next.as_ref().map(After::token),
            ),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                let _ = write!(xml, "<{name}>{value}</{name}>");
            }
        }
        xml.push_str(entries);
        xml.push_str("</ListBucketResult>");
        xml
    }
}

/// A key or prefix as the text of an element: percent-encoded, or with the references that XML needs.
pub(crate) fn text(key: &str, url: bool) -> String {
    if url {
        return encode(key);
    }
    let mut xml = String::with_capacity(key.len());
    for c in key.chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            // As S3 does, though XML 1.0 has no way to say most of these.
            c if c.is_ascii_control() => {
                let _ = write!(xml, "&#x{:x};", u32::from(c));
            }
            c => xml.push(c),
        }
    }
    xml
}
