//! Which parts of keys are names.

/// The longest name, in bytes (`NAME_MAX`).
pub(super) const MAX_NAME: usize = 255;

/// Whether a path can say this component of a key.
pub(super) fn is_sayable(component: &str) -> bool {
    !component.is_empty()
        && component != "."
        && component != ".."
        && component.len() <= MAX_NAME
        && !component.contains('\0')
}

/// Says that the listing of a directory left out `count` keys, if it did.
pub(super) fn warn_of_left_out(directory: &str, count: usize) {
    if count > 0 {
        let keys = if count == 1 { "key is" } else { "keys are" };
        tracing::warn!(
            "{count} {keys} left out of the directory {directory:?}, because no path can name them \
             (empty, `.`, `..`, NUL or more than 255 bytes between slashes)"
        );
    }
}

/// Whether a name looks like a file's: it ends in a dot and a suffix that begins with a letter
/// (`.h5`, `.aux.xml`). Where listing is denied, S3 answers 403 for a missing file and for a
/// directory alike, and this has to tell them apart.
pub fn looks_like_a_file(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, suffix)| {
        suffix.starts_with(|c: char| c.is_ascii_alphabetic())
            && suffix.chars().all(|c| c.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_that_no_path_can_say() {
        let long = "x".repeat(256);
        for bad in ["", ".", "..", "a\0b", &long] {
            assert!(!is_sayable(bad), "{bad:?}");
        }
        for good in ["...", " ", "a\nb", "é", &long[1..]] {
            assert!(is_sayable(good), "{good:?}");
        }
    }

    #[test]
    fn suffixes_that_files_have() {
        for file in ["a.h5", "a.nc4", "b.aux.xml", "x.V.nc"] {
            assert!(looks_like_a_file(file), "{file}");
        }
        for directory in ["ATL03", "2018.10.14", "SPL3SMP_E.006", "v4.1", "a."] {
            assert!(!looks_like_a_file(directory), "{directory}");
        }
    }
}
