//! The three operations, over the store. Who gets here is authenticated.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use s3s::dto::{
    ChecksumType, CommonPrefix, ETag, ETagCondition, EncodingType, GetObjectInput, GetObjectOutput,
    HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, ObjectStorageClass,
    StorageClass, StreamingBlob, Timestamp,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::body::stream_object;
use super::checksums::{self, Said};
use super::lists::MAX_KEYS;
use super::urlencode::encode;
use crate::content::Object;
use crate::faults::Fault;
use crate::script::{Hit, fires};
use crate::state::State;
use crate::store::{After, Holding, PageRequest};

/// How many entries a listing has: goes along with the answer, for the gate to delay it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListedEntries(pub(crate) u32);

/// The operations.
pub(crate) struct Objects {
    state: Arc<State>,
}

impl Objects {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

/// Looks into a bucket.
pub(crate) fn bucket<T>(
    state: &State,
    name: &str,
    look: impl FnOnce(&Holding) -> S3Result<T>,
) -> S3Result<T> {
    let store = state.store.read();
    look(
        store
            .bucket(name)
            .ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))?,
    )
}

/// The version that a GET or HEAD is about.
pub(crate) fn find(state: &State, bucket_name: &str, key: &str) -> S3Result<Object> {
    bucket(state, bucket_name, |holding| match holding.object(key) {
        _ if !holding.may_get() => Err(access_denied()),
        Some(object) => Ok(object.clone()),
        // S3's rule: who may not list may not learn that a key is missing.
        None if !holding.tells_missing() => Err(access_denied()),
        None => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
    })
}

/// The object, if its bytes may be read.
pub(crate) fn readable(object: Object) -> S3Result<Object> {
    if object.archived {
        return Err(s3_error!(
            InvalidObjectState,
            "The operation is not valid for the object's storage class"
        ));
    }
    Ok(object)
}

/// The ETag that the answer gives the object, without its quotes: another one, or none, if the script says so.
pub(crate) fn etag(object: &Object, hit: Option<&Hit>) -> Option<String> {
    let etag = object.etag();
    if fires(hit, &Fault::MissingEtag) {
        return None;
    }
    if fires(hit, &Fault::ChangedEtag) {
        // The first of its hex digits becomes another one.
        let first = if etag.starts_with('0') { '1' } else { '0' };
        return Some(format!("{first}{}", &etag[1..]));
    }
    Some(etag)
}

fn access_denied() -> S3Error {
    s3_error!(AccessDenied, "Access Denied")
}

/// The headers that make a request conditional.
#[derive(Default)]
pub(crate) struct Conditions {
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
}

impl Conditions {
    pub(crate) fn if_match(condition: Option<ETagCondition>) -> Self {
        Self {
            if_match: condition,
            ..Self::default()
        }
    }

    /// In the order of RFC 9110, section 13.2.2.
    pub(crate) fn check(&self, object: &Object, hit: Option<&Hit>) -> S3Result<()> {
        let is_this = |condition: &ETagCondition| {
            let known = match hit.map(Hit::fault) {
                Some(Fault::ChangedEtag) => etag(object, hit),
                _ => Some(object.etag()),
            };
            condition
                .as_etag()
                .is_none_or(|etag| Some(etag.value()) == known.as_deref())
        };
        let modified = last_modified(object);
        let holds = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => is_this(condition),
            (None, Some(since)) => modified <= *since,
            (None, None) => true,
        };
        if !holds {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        let known = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => is_this(condition),
            (None, Some(since)) => modified <= *since,
            (None, None) => false,
        };
        if known {
            return Err(S3Error::new(S3ErrorCode::NotModified));
        }
        Ok(())
    }
}

/// The bytes asked for. A range of an empty object is never satisfiable, not even a suffix.
pub(crate) fn resolve(
    range: Option<&s3s::dto::Range>,
    size: u64,
    hit: Option<&Hit>,
) -> S3Result<Option<Range<u64>>> {
    let Some(range) = range else { return Ok(None) };
    if fires(hit, &Fault::IgnoreRange) {
        return Ok(None);
    }
    let unsatisfiable = || s3_error!(InvalidRange, "The requested range is not satisfiable");
    if size == 0 {
        return Err(unsatisfiable());
    }
    range.check(size).map(Some).map_err(|_| unsatisfiable())
}

pub(crate) fn content_range(
    range: &Option<Range<u64>>,
    size: u64,
    hit: Option<&Hit>,
) -> Option<String> {
    let range = range.as_ref()?;
    let further = u64::from(fires(hit, &Fault::WrongContentRange));
    let (first, last) = (range.start + further, range.end - 1 + further);
    Some(format!("bytes {first}-{last}/{size}"))
}

/// What is said of the object's checksum, if anything.
struct MaySay(Option<Said>);

impl MaySay {
    fn of(&self, algorithm: &str) -> Option<String> {
        let said = self.0.as_ref().filter(|said| said.algorithm == algorithm);
        said.map(|said| said.value.clone())
    }

    fn kind(&self) -> Option<ChecksumType> {
        let said = self.0.as_ref();
        said.map(|said| ChecksumType::from_static(said.kind))
    }
}

fn last_modified(object: &Object) -> Timestamp {
    let at: SystemTime = UNIX_EPOCH + Duration::from_secs(object.modified);
    at.into()
}

/// S3's numbers are signed; a size beyond is one of a synthetic object that nobody can mean.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let max_keys = input.max_keys.unwrap_or(MAX_KEYS).min(MAX_KEYS);
        let Ok(max) = usize::try_from(max_keys) else {
            return Err(s3_error!(
                InvalidArgument,
                "Argument maxKeys must be an integer between 0 and 2147483647"
            ));
        };
        let url = match input.encoding_type.as_ref().map(EncodingType::as_str) {
            None => false,
            Some("url") => true,
            Some(_) => {
                return Err(s3_error!(
                    InvalidArgument,
                    "Invalid Encoding Method specified in Request"
                ));
            }
        };
        // A token is from an earlier page, and outranks the start of the first.
        let after = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => After::from_token(token).ok_or_else(|| {
                s3_error!(
                    InvalidArgument,
                    "The continuation token provided is incorrect"
                )
            })?,
            (None, Some(key)) if !key.is_empty() => After::Key(key.clone()),
            _ => After::Nothing,
        };
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let hit = request.extensions.get::<Hit>();
        let page = bucket(&self.state, &input.bucket, |holding| {
            if !holding.may_list(prefix) {
                return Err(access_denied());
            }
            Ok(holding.page(&PageRequest {
                prefix,
                delimiter: input
                    .delimiter
                    .as_deref()
                    .filter(|delimiter| !delimiter.is_empty()),
                after,
                max,
            }))
        })?;
        let say = |text: &str| if url { encode(text) } else { text.to_owned() };
        let entries = page.objects.len() + page.prefixes.len();
        let contents = page.objects.iter().map(|(key, object)| s3s::dto::Object {
            key: Some(say(key)),
            last_modified: Some(last_modified(object)),
            e_tag: etag(object, hit).map(ETag::Strong),
            size: Some(signed(object.size)),
            storage_class: Some(ObjectStorageClass::from_static(storage_class(object))),
            ..Default::default()
        });
        let common_prefixes = page.prefixes.iter().map(|prefix| CommonPrefix {
            prefix: Some(say(prefix)),
        });
        let output = ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(say(prefix)),
            delimiter: input.delimiter.as_deref().map(say),
            start_after: input.start_after.as_deref().map(say),
            encoding_type: input.encoding_type,
            continuation_token: input.continuation_token,
            max_keys: Some(max_keys),
            key_count: Some(i32::try_from(entries).unwrap_or(MAX_KEYS)),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(|next| next.token()),
            contents: Some(contents.collect()),
            common_prefixes: Some(common_prefixes.collect()),
            ..Default::default()
        };
        let mut response = S3Response::new(output);
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        response.extensions.insert(ListedEntries(entries));
        Ok(response)
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let hit = request.extensions.get::<Hit>();
        let input = request.input;
        let object = find(&self.state, &input.bucket, &input.key)?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check(&object, hit)?;
        let range = resolve(input.range.as_ref(), object.size, hit)?;
        let asked = input.checksum_mode.is_some();
        let said = MaySay(checksums::said(
            &self.state,
            asked,
            &input.key,
            &object,
            range.as_ref(),
        ));
        let length = range
            .as_ref()
            .map_or(object.size, |range| range.end - range.start);
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            checksum_crc32: said.of("crc32"),
            checksum_crc64nvme: said.of("crc64nvme"),
            checksum_type: said.kind(),
            content_length: Some(signed(length)),
            content_range: content_range(&range, object.size, hit),
            content_type: Some("binary/octet-stream".to_owned()),
            e_tag: etag(&object, hit).map(ETag::Strong),
            last_modified: Some(last_modified(&object)),
            // S3 leaves the header out for STANDARD.
            storage_class: object
                .archived
                .then(|| StorageClass::from_static(storage_class(&object))),
            ..Default::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let hit = request.extensions.get::<Hit>();
        let input = request.input;
        let object = readable(find(&self.state, &input.bucket, &input.key)?)?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check(&object, hit)?;
        let range = resolve(input.range.as_ref(), object.size, hit)?;
        let asked = input.checksum_mode.is_some();
        let said = MaySay(checksums::said(
            &self.state,
            asked,
            &input.key,
            &object,
            range.as_ref(),
        ));
        let bytes = range.clone().unwrap_or(0..object.size);
        let reader = object
            .open(&input.key)
            .map_err(|error| S3Error::with_source(S3ErrorCode::InternalError, Box::new(error)))?;
        let body = stream_object(reader, bytes.start, bytes.end);
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            checksum_crc32: said.of("crc32"),
            checksum_crc64nvme: said.of("crc64nvme"),
            checksum_type: said.kind(),
            body: Some(StreamingBlob::from(s3s::Body::http_body_unsync(body))),
            content_length: Some(signed(bytes.end - bytes.start)),
            content_range: content_range(&range, object.size, hit),
            content_type: Some("binary/octet-stream".to_owned()),
            e_tag: etag(&object, hit).map(ETag::Strong),
            last_modified: Some(last_modified(&object)),
            ..Default::default()
        }))
    }
}

pub(crate) fn storage_class(object: &Object) -> &'static str {
    if object.archived {
        ObjectStorageClass::GLACIER
    } else {
        ObjectStorageClass::STANDARD
    }
}
