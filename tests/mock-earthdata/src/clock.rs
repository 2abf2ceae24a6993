//! Wall-clock instants in the spellings that Earthdata and S3 use.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// `2021-01-27 00:50:09+00:00`: Python's `str(datetime)` without fractions, as TEA and Cumulus send it.
const EXPIRATION: &[BorrowedFormatItem<'_>] = format_description!(
    "[year]-[month]-[day] [hour]:[minute]:[second][offset_hour sign:mandatory]:[offset_minute]"
);

/// `MM/DD/YYYY`: the expiration date of an Earthdata Login user token.
const TOKEN_DATE: &[BorrowedFormatItem<'_>] = format_description!("[month]/[day]/[year]");

/// The expiry as `/s3credentials` spells it: whole seconds, cut, so never later than the true one.
pub(crate) fn expiration(at: SystemTime) -> String {
    format(at, EXPIRATION)
}

/// The day on which a user token ends.
pub(crate) fn token_date(at: SystemTime) -> String {
    format(at, TOKEN_DATE)
}

/// `2021-01-27T00:50:09.000Z`: a time in S3's XML.
const XML_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].000Z");

/// `20210127T005009Z`: the time of a signature.
const AMZ_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// A time in S3's XML, from whole seconds since the epoch.
pub(crate) fn xml_time(seconds: u64) -> String {
    format(UNIX_EPOCH + Duration::from_secs(seconds), XML_TIME)
}

/// The time of a signature (`x-amz-date`) in seconds since the epoch.
pub(crate) fn signed_at(amz_date: &str) -> Option<i64> {
    let at = PrimitiveDateTime::parse(amz_date, AMZ_DATE).ok()?;
    Some(at.assume_utc().unix_timestamp())
}

/// The time that is so many seconds after the epoch.
pub(crate) fn from_seconds(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Whole seconds since the epoch, cut; 0 for times before it.
pub(crate) fn whole_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map(|since| since.as_secs())
        .unwrap_or(0)
}

fn format(at: SystemTime, spelling: &[BorrowedFormatItem<'_>]) -> String {
    let whole = UNIX_EPOCH + Duration::from_secs(whole_seconds(at));
    OffsetDateTime::from(whole)
        .format(spelling)
        .expect("every component of the spelling is one of a date with an offset")
}
