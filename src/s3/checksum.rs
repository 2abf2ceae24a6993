//! Checksums of whole objects, to tell bytes that were changed on the way.
//!
//! S3 keeps one for most objects, by an algorithm that the uploader chose (CRC-64/NVME if none was
//! chosen, since the end of 2024), and tells it with `x-amz-checksum-mode: ENABLED` in a GET. That needs no right beyond
//! that of the GET itself; with a HEAD it would (`kms:Decrypt`), so HEADs do not ask. Servers that
//! do not know the header pass over it.
//!
//! It is comparable in one case only: the answer holds all of the object, and `x-amz-checksum-type` is
//! `FULL_OBJECT`. The value of a `COMPOSITE` one is a checksum of the checksums of the upload's parts, of which nothing is
//! known here; it ends in `-N` in the answer to a GET without a range, and **not** in one to a range that
//! happens to be the whole object (boto/botocore#3346). For other ranges S3 sends none; some
//! servers send that of the whole object, which is not compared.

use crc_fast::CrcAlgorithm::{self, Crc32Iscsi, Crc32IsoHdlc, Crc64Nvme};
use ring::digest;

/// Asks for it; the header must be signed along.
pub(super) const ASK: (&str, &str) = ("x-amz-checksum-mode", "ENABLED");
/// Larger objects are not compared: none of their bytes could be read before the last one has come. One of this size
/// comes within some milliseconds of its first byte, and is one block of the cache.
pub(super) const LARGEST: u64 = 1 << 20;

/// What S3 sums by, the cheapest first: a CRC takes 0.02 s for a GiB, SHA-256 0.7 s. SHA-1 takes 2.5 s, more than all
/// else that is done for a small object, and is left out.
const KINDS: [Kind; 4] = [
    Kind("crc64nvme", "CRC-64/NVME", By::Crc(Crc64Nvme, 8)),
    Kind("crc32c", "CRC-32C", By::Crc(Crc32Iscsi, 4)),
    Kind("crc32", "CRC-32", By::Crc(Crc32IsoHdlc, 4)),
    Kind("sha256", "SHA-256", By::Sha(&digest::SHA256)),
];

/// The end of its header's name, its name for people, and what it is.
struct Kind(&'static str, &'static str, By);

enum By {
    /// With the length of its value in bytes.
    Crc(CrcAlgorithm, usize),
    Sha(&'static digest::Algorithm),
}

/// What the bytes of an object must add up to, and what those that came so far do.
pub(super) struct Checksum {
    algorithm: &'static str,
    /// In base64, as S3 writes it.
    expected: String,
    sum: Sum,
}

enum Sum {
    Crc(Box<crc_fast::Digest>, usize),
    Sha(Box<digest::Context>),
}

impl Sum {
    fn new(by: &By) -> Self {
        match *by {
            By::Crc(crc, len) => Self::Crc(Box::new(crc_fast::Digest::new(crc)), len),
            By::Sha(sha) => Self::Sha(Box::new(digest::Context::new(sha))),
        }
    }
}

impl Checksum {
    /// The one of an answer that holds all of an object, if it can be compared.
    pub(super) fn of_whole<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        if header("x-amz-checksum-type") != Some("FULL_OBJECT") {
            return None;
        }
        KINDS.iter().find_map(|Kind(name, algorithm, by)| {
            let value = header(&format!("x-amz-checksum-{name}"))?;
            (!value.contains('-')).then(|| Self {
                algorithm,
                expected: value.to_owned(),
                sum: Sum::new(by),
            })
        })
    }

    /// Takes the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.sum {
            Sum::Crc(crc, _) => crc.update(bytes),
            Sum::Sha(sha) => sha.update(bytes),
        }
    }

    /// After the last byte: whether they were the right ones; if not, what the checksum is called.
    pub(super) fn compare(self) -> Result<(), &'static str> {
        let value = match self.sum {
            Sum::Crc(crc, len) => base64(&crc.finalize().to_be_bytes()[8 - len..]),
            Sum::Sha(sha) => base64(sha.finish().as_ref()),
        };
        match value == self.expected {
            true => Ok(()),
            false => Err(self.algorithm),
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: (&str, &str) = ("x-amz-checksum-type", "FULL_OBJECT");

    fn of(headers: &[(&'static str, &'static str)]) -> Option<Checksum> {
        Checksum::of_whole(|name| {
            let header = headers.iter().find(|(one, _)| *one == name);
            header.map(|(_, value)| *value)
        })
    }

    /// The check values of the catalogues: of `123456789`.
    #[test]
    fn each_algorithm_has_its_check_value_and_sees_a_changed_bit() {
        for (name, value) in [
            ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
            ("x-amz-checksum-crc32c", "4waSgw=="),
            ("x-amz-checksum-crc32", "y/Q5Jg=="),
            (
                "x-amz-checksum-sha256",
                "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
            ),
        ] {
            let mut right = of(&[FULL, (name, value)]).expect(name);
            right.update(b"1234");
            right.update(b"56789");
            assert_eq!(right.compare(), Ok(()), "{name}");
            let mut wrong = of(&[FULL, (name, value)]).expect(name);
            wrong.update(b"123456788");
            assert!(wrong.compare().is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_not_known_to_be_of_all_bytes_is_not_compared() {
        const CRC: (&str, &str) = ("x-amz-checksum-crc32", "y/Q5Jg==");
        assert!(of(&[FULL, CRC]).is_some());
        assert!(of(&[CRC]).is_none(), "no type");
        assert!(of(&[("x-amz-checksum-type", "COMPOSITE"), CRC]).is_none());
        assert!(of(&[FULL, ("x-amz-checksum-crc32", "y/Q5Jg==-1")]).is_none());
        assert!(
            of(&[
                FULL,
                ("x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE=")
            ])
            .is_none()
        );
        assert!(of(&[FULL]).is_none());
    }
}
