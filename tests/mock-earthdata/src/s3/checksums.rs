//! What S3 says of an object's checksum, to a GET or HEAD with `x-amz-checksum-mode: ENABLED`: nothing where the
//! answer is of a part of the object only. Where a range happens to be all of it, a composite checksum comes without the
//! count of its parts.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::content::Object;
use crate::settings::Checksums;
use crate::state::State;

/// Larger objects have none, as if they were uploaded without: each answer computes it anew.
const LARGEST: u64 = 16 << 20;

/// A checksum as it is said.
pub(crate) struct Said {
    /// What follows `x-amz-checksum-`.
    pub(crate) algorithm: &'static str,
    pub(crate) value: String,
    /// `x-amz-checksum-type`.
    pub(crate) kind: &'static str,
}

/// What an answer says that carries `range` of the object, all of it if there is none.
pub(crate) fn said(
    state: &State,
    is_asked_for: bool,
    key: &str,
    object: &Object,
    range: Option<&Range<u64>>,
) -> Option<Said> {
    let is_whole = range.is_none_or(|range| *range == (0..object.size));
    let is_said = is_asked_for || state.checksums == Checksums::Unasked;
    if !is_said || !is_whole || object.size > LARGEST {
        return None;
    }
    match state.checksums {
        Checksums::None => None,
        Checksums::FullObject | Checksums::Unasked => {
            let crc = object.checksum(key, crc_fast::CrcAlgorithm::Crc64Nvme)?;
            Some(Said {
                algorithm: "crc64nvme",
                value: STANDARD.encode(crc.to_be_bytes()),
                kind: "FULL_OBJECT",
            })
        }
        Checksums::Composite => {
            // Uploaded in one part.
            let part = object.checksum(key, crc_fast::CrcAlgorithm::Crc32IsoHdlc)?;
            let part = part.to_be_bytes();
            let of_parts = crc_fast::crc32_iso_hdlc(&part[4..]);
            let count = if range.is_none() { "-1" } else { "" };
            Some(Said {
                algorithm: "crc32",
                value: STANDARD.encode(of_parts.to_be_bytes()) + count,
                kind: "COMPOSITE",
            })
        }
    }
}
