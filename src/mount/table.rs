//! The kernel's table of mounts (proc(5), mountinfo).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Debug)]
pub(super) struct Mounted {
    /// As `major:minor`.
    pub(super) device: String,
    /// What it is on.
    pub(super) place: PathBuf,
    kind: String,
    source: String,
    options: String,
}

impl Mounted {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ');
        let text = |field: &[u8]| String::from_utf8_lossy(&unescaped(field)).into_owned();
        let device = text(fields.nth(2)?);
        // Behind the directory of the file system that is its root.
        let place = OsString::from_vec(unescaped(fields.nth(1)?)).into();
        let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
        Some(Self {
            device,
            place,
            kind: text(behind.next()?),
            source: text(behind.next()?),
            options: text(behind.next()?),
        })
    }

    /// What is mounted, if it is a mount of this program.
    pub(super) fn source_of_ours(&self) -> Option<&str> {
        (self.kind == "fuse.s3credmount").then_some(&self.source)
    }

    /// The user who mounted it, if it is a FUSE mount.
    pub(super) fn fuse_user(&self) -> Option<u32> {
        let mut options = self.options.split(',');
        let user = options.find_map(|option| option.strip_prefix("user_id="))?;
        user.parse().ok()
    }
}

/// Blanks, ends of lines and backslashes stand there as `\` and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let [first, behind @ ..] = rest {
        let code = behind.get(..3).and_then(|code| str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 8).ok());
        match code.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

/// All mounts; of those on one place the topmost comes last.
pub(super) fn all() -> io::Result<Vec<Mounted>> {
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    let lines = mounts.split(|b| *b == b'\n');
    Ok(lines.filter_map(Mounted::parse).collect())
}

/// The topmost mount on `path`, which is absolute.
pub(super) fn on(path: &Path) -> Option<Mounted> {
    let mut from_top = all().ok()?.into_iter().rev();
    from_top.find(|mount| mount.place == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whatever_the_names_are() {
        let line =
            b"36 35 0:42 / /a\\040b\\134c/caf\xe9 ro,nosuid shared:1 master:2 - fuse.s3credmount \
                     s3://bucket/a\\040b ro,user_id=7,group_id=0";
        let mount = Mounted::parse(line).expect("a mount");
        let place = OsString::from_vec(b"/a b\\c/caf\xe9".to_vec());
        assert_eq!((&*mount.device, mount.place), ("0:42", place.into()));
        let mount = Mounted::parse(line).expect("a mount");
        assert_eq!(mount.source_of_ours(), Some("s3://bucket/a b"));
        assert_eq!(mount.fuse_user(), Some(7));
        let root = b"1 0 8:1 / / rw - ext4 /dev/root rw";
        let root = Mounted::parse(root).expect("a mount");
        assert_eq!((root.source_of_ours(), root.fuse_user()), (None, None));
        assert_eq!(root.place, Path::new("/"));
        assert!(Mounted::parse(b"").is_none());
    }
}
