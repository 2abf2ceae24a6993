//! Where a user's files belong (XDG Base Directory Specification).

use std::path::PathBuf;

/// Logs and the like.
pub(super) fn state_directory() -> Result<PathBuf, String> {
    directory("XDG_STATE_HOME", ".local/state")
        .ok_or_else(|| "HOME is not set: say where to log to with --log-file".to_owned())
}

/// The user's own table of buckets; `None` without a home.
pub(super) fn table_of_buckets() -> Option<PathBuf> {
    let cache = directory("XDG_CACHE_HOME", ".cache")?;
    Some(cache.join("s3credmount/buckets.tsv"))
}

fn directory(variable: &str, in_home: &str) -> Option<PathBuf> {
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    path(variable)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(path("HOME").filter(|p| p.is_absolute())?.join(in_home)))
}
