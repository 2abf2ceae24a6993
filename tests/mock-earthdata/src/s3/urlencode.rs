//! `encoding-type=url`, as S3 does it.

/// Percent-encodes a key, prefix or delimiter of a listing: a space becomes `+`; letters, digits and `-_./*` stay; every
/// other byte is `%XX`. (MinIO's `s3URLEncode` found the same by trying: Java's URLEncoder, with `/` kept.)
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b'*' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                encoded.push('%');
                encoded.push(char::from(HEX[usize::from(byte >> 4)]));
                encoded.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    encoded
}
