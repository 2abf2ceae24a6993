//! ListObjectsV2, a page at a time.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use super::client::S3;
use super::error::{Error, Failure, plain};
use super::list_xml;
use super::pace::whole;
use super::retry::Attempt;
use super::send::{self, Method};
use super::types::ObjectMeta;
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

    /// The last key or common prefix, if there is more behind it.
    pub fn breaks_off_at(&self) -> Option<&str> {
        self.last().filter(|_| self.next_token.is_some())
    }
}

/// Pages without entries that are read on one after another. In time, the operation's deadline is the bound.
const MOST_EMPTY: usize = 1000;
/// A page has at most 1,000 keys of at most 1,024 bytes, each byte encoded as three.
const MAX_PAGE: usize = 8 << 20;

impl S3 {
    /// Lists one page, which has entries unless it is the last. A page of S3 without entries, as it may
    /// answer with where very many objects were deleted, is read on.
    ///
    /// # Errors
    /// [`Error::Protocol`] where the answer contradicts the query; the others as S3 says.
    pub async fn list(&self, query: ListQuery<'_>, request: &Request) -> Result<Page, Error> {
        let mut from = query.from;
        let mut token: String;
        // Hashes: tokens are as long as a server likes.
        let hasher = RandomState::new();
        let mut seen = HashSet::new();
        if let From::Token(token) = from {
            seen.insert(hasher.hash_one(token));
        }
        for _ in 0..MOST_EMPTY {
            let page = self.page(&query, from, request).await?;
            token = match &page.next_token {
                Some(token) if page.last().is_none() => token.clone(),
                _ => return Ok(page),
            };
            if !seen.insert(hasher.hash_one(&token)) {
                let why = "a list that does not go on".to_owned();
                return Err(Error::Protocol(why));
            }
            from = From::Token(&token);
        }
        let why = format!("a list with {MOST_EMPTY} pages without entries");
        Err(Error::Protocol(why))
    }

    /// One page of S3 for `query`, from `from` on.
    async fn page(
        &self,
        query: &ListQuery<'_>,
        from: From<'_>,
        request: &Request,
    ) -> Result<Page, Error> {
        tracing::trace!(?query, ?from, "LIST");
        let max_keys = query.max_keys.to_string();
        let mut parameters = vec![
            ("list-type", "2"),
            ("prefix", query.prefix),
            ("max-keys", &max_keys),
            // A control character in one key would break the XML of the whole page.
            ("encoding-type", "url"),
        ];
        if query.delimited {
            parameters.push(("delimiter", "/"));
        }
        match from {
            From::Start => {}
            From::After(key) => parameters.push(("start-after", key)),
            From::Token(token) => parameters.push(("continuation-token", token)),
        }
        let target = send::query(&parameters);
        let headers = [("x-amz-optional-object-attributes", "RestoreStatus")];
        let hedges = match query.max_keys {
            ..=FEW => &self.hedges.names,
            _ => &self.hedges.pages,
        };
        let list = async |attempt: Attempt| {
            let send = || async {
                let answer = self.sender.send(Method::Get, &target, &headers, &attempt);
                whole(answer.await?.into_body(), MAX_PAGE, attempt.patience).await
            };
            let page = read(&self.hedged(hedges, request, send).await?)?;
            check(&page, query)?;
            Ok(page)
        };
        Ok(self.retried(request, list).await?.0)
    }
}

/// Lists of up to so many keys are about names, not about pages.
const FEW: u16 = 32;

/// Makes a page of an answer. One that cannot be read may be read the next time.
fn read(xml: &[u8]) -> Result<Page, Failure> {
    let list = list_xml::parse(xml);
    let list = list.map_err(|error| {
        let why = plain(&error);
        Failure::Transient(format!("a list that is none: {why}"))
    })?;
    let key = |text: String| decode(text, list.is_url_encoded);
    let next_token = match (list.is_truncated, list.next_token) {
        (false, _) => None,
        (true, None) => return Err(Failure::Transient("no token".to_owned())),
        (true, token) => token,
    };
    let mut objects = Vec::with_capacity(list.contents.len());
    for (text, meta) in list.contents {
        objects.push(Listed {
            key: key(text)?,
            meta,
        });
    }
    let prefixes = list.common_prefixes.into_iter().map(key);
    Ok(Page {
        objects,
        prefixes: prefixes.collect::<Result<_, _>>()?,
        next_token,
    })
}

/// S3 encodes as HTML forms do: `+` is a blank.
pub(super) fn decode(text: String, encoded: bool) -> Result<String, Failure> {
    if !encoded || !text.contains(['+', '%']) {
        return Ok(text);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    let decoded = decoded
        .map_err(|_| Failure::Final(Error::Protocol("a listed key is not UTF-8".to_owned())))?;
    Ok(decoded.into_owned())
}

/// What is built on a listing (names known to be absent) is wrong if it is out of order or holds
/// what was not asked for.
pub(super) fn check(page: &Page, query: &ListQuery<'_>) -> Result<(), Failure> {
    let keys = || page.objects.iter().map(|o| o.key.as_str());
    let prefixes = || page.prefixes.iter().map(String::as_str);
    let after = match query.from {
        From::After(key) => key,
        From::Start | From::Token(_) => "",
    };
    // Behind the prefix, up to and with the first `/`, which is all of a common prefix.
    let gathered = |key: &str| {
        let slash = key.get(query.prefix.len()..)?.find('/')?;
        Some(query.prefix.len() + slash + 1)
    };
    let wrong = if !keys().is_sorted_by(|a, b| a < b) || !prefixes().is_sorted_by(|a, b| a < b) {
        "out of order"
    } else if keys()
        .chain(prefixes())
        .any(|k| !k.starts_with(query.prefix))
    {
        "outside the prefix"
    } else if keys().any(|k| !after.is_empty() && k <= after)
        || prefixes().any(|p| p <= after && !after.starts_with(p))
    {
        "before its start"
    } else if query.delimited && keys().any(|k| gathered(k).is_some())
        || prefixes().any(|p| !query.delimited || gathered(p) != Some(p.len()))
    {
        "not gathered at its slashes"
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
    use crate::s3::pretended::meta;

    #[test]
    fn keys_are_decoded_as_forms() {
        let decoded = |text: &str| decode(text.to_owned(), true).expect("UTF-8");
        assert_eq!(decoded("a+b%2Bc%0A%C3%A9/d"), "a b+c\né/d");
        assert_eq!(
            decode("a+b%20".to_owned(), false).expect("as it is"),
            "a+b%20"
        );
        assert!(decode("%FF".to_owned(), true).is_err());
    }

    fn is_refused(objects: &[&str], prefixes: &[&str], delimited: bool, after: &str) -> bool {
        let object = |key: &&str| Listed {
            key: (*key).to_owned(),
            meta: meta(0, ""),
        };
        let page = Page {
            objects: objects.iter().map(object).collect(),
            prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
            next_token: None,
        };
        let query = ListQuery {
            prefix: "a/",
            delimited,
            from: match after {
                "" => From::Start,
                after => From::After(after),
            },
            max_keys: 1000,
        };
        check(&page, &query).is_err()
    }

    #[test]
    fn a_page_that_is_not_gathered_at_its_slashes_is_refused() {
        assert!(!is_refused(&["a/", "a/b"], &["a//", "a/c/"], true, ""));
        assert!(!is_refused(&["a/", "a/b", "a/c/d"], &[], false, ""));
        // A file in a directory that was not asked about, and a file that is named as a directory.
        assert!(is_refused(&["a/b/c"], &[], true, "") && is_refused(&["a/b/"], &[], true, ""));
        // Directories that are none: without a slash, of two components, the one that is listed.
        for prefix in ["a/b", "a/b/c/", "a/b/c", "a/"] {
            assert!(is_refused(&[], &[prefix], true, ""), "{prefix}");
        }
        assert!(is_refused(&["a/b"], &["a/c/"], false, ""));
    }

    #[test]
    fn a_page_begins_behind_its_start_or_with_the_prefix_that_holds_it() {
        assert!(!is_refused(&["a/n"], &["a/m/"], true, "a/m/x"));
        assert!(
            is_refused(&[], &["a/l/"], true, "a/m/x") && is_refused(&["a/k"], &[], true, "a/m/x")
        );
    }
}
