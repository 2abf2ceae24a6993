//! The files in which the processes of a user on one host share credentials.
//!
//! One file for each endpoint, login host and login, with a lock beside it, and one for each login host and login, for
//! the mark of a wrong password. The name is an HMAC of these (and of the boot, since times are of the boot clock) with
//! a random key that lies in the same directory: it tells nothing of the login, and a changed password leads to another
//! file.
//!
//! Files are replaced in one step, so that they can be read without the lock. Whatever is not owned by
//! this user, or can be read or written by others, is neither believed nor used; what cannot be kept
//! from others is not written.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::earthdata::{Grant, LONGEST_LIFE, Refusal, is_printable};

/// Session tokens have one or two KiB.
const MAX_FILE: u64 = 64 << 10;
/// Of a key, in bytes.
const KEY_LENGTH: usize = 32;
/// Of a file's name, in hexadecimal digits.
const NAME_LENGTH: usize = 32;
/// Credentials that were written longer ago ended more than a day ago.
const OLD: Duration = LONGEST_LIFE.saturating_add(Duration::from_secs(24 * 3600));

/// Why a directory or file is not used to share credentials.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not this user's alone.
    #[error("{} {what}", path.display())]
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The system does not allow it.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The directory lies on a file system that does not answer.
    #[error("{}: the file system does not answer", _0.display())]
    Silent(PathBuf),
}

fn at(path: &Path) -> impl Fn(io::Error) -> StoreError + '_ {
    |error| StoreError::Io {
        path: path.to_owned(),
        error,
    }
}

/// What the processes of a host know of one login, at one endpoint or at all.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) grant: Option<SharedGrant>,
    pub(super) refused: Option<Mark>,
}

/// Credentials, with times on the boot clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SharedGrant {
    access_key_id: String,
    #[serde(serialize_with = "exposed")]
    secret_access_key: SecretString,
    #[serde(serialize_with = "exposed")]
    session_token: SecretString,
    granted: Duration,
    expires: Duration,
    /// See [`Grant::clock_ahead`].
    clock_ahead: i64,
}

/// Says that Earthdata Login refused this login.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    refusal: Refusal,
    /// On the boot clock.
    at: Duration,
    /// When the file that the login stands in was last written.
    source_changed: Option<SystemTime>,
}

fn exposed<S: serde::Serializer>(secret: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose_secret())
}

impl Record {
    /// What a file holds that says `text`; nothing, if that cannot be believed.
    pub(super) fn parse(text: &str) -> Self {
        let record: Self = serde_json::from_str(text).unwrap_or_default();
        Self {
            grant: record.grant.filter(SharedGrant::is_sound),
            ..record
        }
    }
}

impl SharedGrant {
    pub(super) fn of(grant: &Grant, now: Duration) -> Self {
        Self {
            access_key_id: grant.access_key_id.clone(),
            secret_access_key: grant.secret_access_key.clone(),
            session_token: grant.session_token.clone(),
            granted: now,
            expires: now + grant.remaining,
            clock_ahead: grant.clock_ahead,
        }
    }

    /// Whether an endpoint can have granted this.
    fn is_sound(&self) -> bool {
        let life = self.expires.checked_sub(self.granted);
        life.is_some_and(|life| life <= LONGEST_LIFE)
            && is_printable(&self.access_key_id)
            && is_printable(self.secret_access_key.expose_secret())
            && is_printable(self.session_token.expose_secret())
    }

    /// The credentials as they are at `now`.
    pub(super) fn grant(&self, now: Duration) -> Grant {
        Grant {
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            session_token: self.session_token.clone(),
            remaining: self.expires.saturating_sub(now),
            clock_ahead: self.clock_ahead,
        }
    }

    /// Whether they have not ended, and are not the ones to be replaced. What was granted in the future
    /// says nothing.
    pub(super) fn is_living(&self, replaces: Option<&str>, now: Duration) -> bool {
        (self.granted..self.expires).contains(&now) && replaces != Some(&self.access_key_id)
    }

    /// The same, and whether they need not be renewed yet.
    pub(super) fn is_fresh(&self, replaces: Option<&str>, now: Duration) -> bool {
        let life = self.expires.saturating_sub(self.granted);
        let age = now.saturating_sub(self.granted);
        self.is_living(replaces, now) && age < super::schedule::latest_refresh(life)
    }
}

impl Mark {
    pub(super) fn new(refusal: Refusal, source_changed: Option<SystemTime>, now: Duration) -> Self {
        Self {
            refusal,
            at: now,
            source_changed,
        }
    }

    /// The refusal, if it still holds for a login that stands in a file last written at `changed`.
    pub(super) fn holds(&self, changed: Option<SystemTime>, now: Duration) -> Option<Refusal> {
        // One of the future is damaged, and must not lock the user out until then.
        let over = self.refusal.lasts().is_some_and(|lasts| {
            now.checked_sub(self.at)
                .is_none_or(|passed| passed >= lasts)
        });
        (self.source_changed == changed && !over).then_some(self.refusal)
    }
}

/// The file of one login, and its lock.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    directory: PathBuf,
    path: PathBuf,
}

/// Held until it is dropped, or the process ends.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing it unlocks")] File);

impl Entry {
    /// The entry of `identity` in `directory`, which is made if it is missing.
    pub(super) fn open(directory: &Path, identity: &SecretString) -> Result<Self, StoreError> {
        check_directory(directory)?;
        let key = hmac::Key::new(
            hmac::HMAC_SHA256,
            key(directory)?.expose_secret().as_bytes(),
        );
        let mut context = hmac::Context::with_key(&key);
        context.update(boot_id().as_bytes());
        context.update(identity.expose_secret().as_bytes());
        let tag = context.sign();
        let name: String = tag.as_ref()[..NAME_LENGTH / 2]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Ok(Self {
            directory: directory.to_owned(),
            path: directory.join(name),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds, which is nothing if there is none, or none that can be believed; `None` if it
    /// cannot be told.
    pub(super) fn read(&self) -> Option<Record> {
        match read_own(&self.path) {
            Ok(Some(text)) => Some(Record::parse(text.expose_secret())),
            Ok(None) => Some(Record::default()),
            Err(error) => {
                tracing::warn!("shared credentials are not used: {error}");
                None
            }
        }
    }

    /// Replaces the file.
    pub(super) fn write(&self, record: &Record) -> Result<(), StoreError> {
        let text =
            SecretString::from(
                serde_json::to_string(record).map_err(|error| StoreError::Io {
                    path: self.path.clone(),
                    error: error.into(),
                })?,
            );
        let file = private_file(&self.directory, text.expose_secret())?;
        let persisted = file.persist(&self.path);
        persisted.map_err(|error| at(&self.path)(error.error))?;
        self.sweep();
        Ok(())
    }

    /// Removes what other logins, boots and processes that were killed have left in the directory.
    fn sweep(&self) {
        let files = std::fs::read_dir(&self.directory).into_iter().flatten();
        for path in files.flatten().map(|file| file.path()) {
            let name = path.file_stem().unwrap_or_default().as_bytes();
            if !is_old(&path) {
                continue;
            }
            if name.starts_with(b".tmp") {
                let _ = std::fs::remove_file(path);
            } else if name.len() == NAME_LENGTH && name.iter().all(u8::is_ascii_hexdigit) {
                let directory = self.directory.clone();
                let path = path.with_extension("");
                Self { directory, path }.remove_if_ended();
            }
        }
    }

    /// Removes an old file, and its lock unless that is held. A password that was refused is wrong for ever.
    fn remove_if_ended(&self) {
        let is_wrong = |mark: &Mark| mark.refusal.lasts().is_none();
        let record = self.read();
        if record.is_none_or(|record| record.refused.as_ref().is_some_and(is_wrong)) {
            return;
        }
        if let Ok(Some(_lock)) = self.try_lock()
            && (is_old(&self.path) || !self.path.exists())
        {
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_file(self.path.with_extension("lock"));
        }
    }

    /// The lock; `None` while another process holds it.
    pub(super) fn try_lock(&self) -> Result<Option<Lock>, StoreError> {
        let path = self.path.with_extension("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = file.open(&path).map_err(at(&path))?;
        check_own(&path, &file.metadata().map_err(at(&path))?)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(at(&path)(error)),
        }
    }
}

/// Makes the directory, and looks whether it is this user's alone.
///
/// # Errors
/// [`StoreError`]: it cannot be used.
pub(super) fn check_directory(directory: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().mode(0o700).create(directory);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(at(directory)(error));
    }
    let found = directory.symlink_metadata().map_err(at(directory))?;
    let untrusted = |what| StoreError::Untrusted {
        path: directory.to_owned(),
        what,
    };
    if !found.is_dir() {
        return Err(untrusted("is not a directory"));
    }
    if found.uid() != user() {
        return Err(untrusted("belongs to another user"));
    }
    if found.mode() & 0o077 != 0 {
        return Err(untrusted("is open to other users (its mode must be 0700)"));
    }
    // Whoever may rename it could put another one in its place.
    let parent = directory.parent().unwrap_or(directory);
    let above = parent.metadata().map_err(at(parent))?;
    let is_sticky = above.mode() & 0o1000 != 0;
    if (above.uid() != user() && above.uid() != 0) || (above.mode() & 0o002 != 0 && !is_sticky) {
        return Err(untrusted(
            "lies in a directory that another user can change",
        ));
    }
    Ok(())
}

fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn check_own(path: &Path, found: &Metadata) -> Result<(), StoreError> {
    let what = if !found.is_file() {
        "is not a file"
    } else if found.uid() != user() {
        "belongs to another user"
    } else if found.mode() & 0o077 != 0 {
        "is open to other users (its mode must be 0600)"
    } else {
        return Ok(());
    };
    Err(StoreError::Untrusted {
        path: path.to_owned(),
        what,
    })
}

/// Whether it is a file of this user's that was not written for long.
fn is_old(path: &Path) -> bool {
    let found = path.symlink_metadata().ok();
    let found = found.filter(|found| check_own(path, found).is_ok());
    let written = found.and_then(|found| found.modified().ok());
    let age = written.and_then(|written| written.elapsed().ok());
    age.is_some_and(|age| age > OLD)
}

/// Reads a file that is this user's alone; `None` if there is none.
fn read_own(path: &Path) -> Result<Option<SecretString>, StoreError> {
    let mut options = OpenOptions::new();
    let options = options.read(true);
    // A pipe in its place must not stop us.
    let file = options
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    check_own(path, &file.metadata().map_err(at(path))?)?;
    let mut text = String::new();
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(at(path))?;
    Ok(Some(text.into()))
}

/// A new file that holds `text`, not yet under its name. Some file systems know no modes: there, nothing
/// is written.
fn private_file(directory: &Path, text: &str) -> Result<tempfile::NamedTempFile, StoreError> {
    let file = tempfile::NamedTempFile::new_in(directory).map_err(at(directory))?;
    let found = file.as_file().metadata().map_err(at(file.path()))?;
    check_own(file.path(), &found)?;
    file.as_file()
        .write_all(text.as_bytes())
        .map_err(at(file.path()))?;
    Ok(file)
}

/// The key that names are made with, in hexadecimal digits; made by whoever comes first.
fn key(directory: &Path) -> Result<SecretString, StoreError> {
    let path = directory.join("key");
    if let Some(key) = read_own(&path)?.filter(is_key) {
        return Ok(key);
    }
    let made = random_key().map_err(at(&path))?;
    match private_file(directory, made.expose_secret())?.persist_noclobber(&path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at(&path)(error.error)),
    }
    let key = read_own(&path)?.filter(is_key);
    key.ok_or(StoreError::Untrusted {
        path,
        what: "is damaged: remove it",
    })
}

/// A key that nobody can guess, in hexadecimal digits.
///
/// # Errors
/// Where the system has no random numbers.
pub fn random_key() -> io::Result<SecretString> {
    let mut random = [0; KEY_LENGTH];
    let made = SystemRandom::new().fill(&mut random);
    made.map_err(|_| io::Error::other("the system has no random numbers"))?;
    let text: String = random.iter().map(|b| format!("{b:02x}")).collect();
    Ok(text.into())
}

fn is_key(text: &SecretString) -> bool {
    text.expose_secret().len() == 2 * KEY_LENGTH
}

/// Tells this boot of this host from all others: a directory may be shared by several hosts.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
