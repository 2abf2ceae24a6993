//! Which login to use: a token file, a netrc, a token, or user and password.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret, SecretString};

use super::answer::is_printable;
use super::error::Error;
use super::netrc::Netrc;
use super::web::Authority;
use crate::sync::{Arc, Mutex, Semaphore, lock};

/// Files of logins are far smaller; what is larger is something else.
const MAX_FILE: u64 = 1 << 20;
/// A home directory on a file server that does not answer must not stop the refresh for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Whether it was told that others can read a file of logins: files are read again and again.
static EXPOSED: Once = Once::new();

/// Where logins are looked for, in the order of the fields. What was asked for by an option is the
/// only place that is looked at.
#[derive(Clone, Debug, Default)]
pub struct LoginSettings {
    /// `--token-file`: holds a bearer token of Earthdata Login and nothing else.
    pub token_file: Option<PathBuf>,
    /// `--netrc`: must exist and be readable.
    pub netrc: Option<PathBuf>,
    /// `EARTHDATA_TOKEN`: a bearer token of Earthdata Login.
    pub token: Option<SecretString>,
    /// `EARTHDATA_USERNAME` and `EARTHDATA_PASSWORD`.
    pub user: Option<(String, SecretString)>,
    /// Which of these two is missing where there is the other.
    pub lacks: Option<&'static str>,
    /// `$NETRC`, else `~/.netrc`: may be missing.
    pub default_netrc: Option<PathBuf>,
}

/// A way to prove who the user is.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    Token(SecretString),
    Password {
        user: String,
        password: SecretString,
    },
}

/// A login and the place that it was found in.
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    pub(super) proof: Proof,
    /// For messages.
    pub(super) source: String,
    /// When the file it came from was last written: one that is saved again, even with the same
    /// password, may be tried again.
    pub(super) changed: Option<SystemTime>,
    /// Whether it came out of a pipe, which has it once.
    pub(super) is_from_pipe: bool,
    /// Whether the password has a backslash in the netrc, where that says something of the next character.
    pub(super) has_backslash: bool,
}

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(a), Self::Token(b)) => a.expose_secret() == b.expose_secret(),
            (
                Self::Password { user, password },
                Self::Password {
                    user: other_user,
                    password: other_password,
                },
            ) => user == other_user && password.expose_secret() == other_password.expose_secret(),
            _ => false,
        }
    }
}

/// What it is and where it was found; nothing secret.
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proof {
            Proof::Token(_) => write!(f, "a token from {}", self.source),
            Proof::Password { user, .. } => {
                write!(f, "the password of {user} from {}", self.source)
            }
        }
    }
}

impl Login {
    /// The user's name, where it is known.
    pub(super) fn user(&self) -> &str {
        match &self.proof {
            Proof::Password { user, .. } => user,
            Proof::Token(_) => "",
        }
    }

    /// When the file that it came from was last written; `None` if it came from elsewhere.
    pub fn changed(&self) -> Option<SystemTime> {
        self.changed
    }
}

/// Looks for the user's login again and again.
#[derive(Debug)]
pub(super) struct Finder {
    pub(super) settings: LoginSettings,
    /// Kept by a look that is under way, also when nobody waits for it any more: its thread is one of those that all
    /// share, and there would be none left some day.
    turn: Arc<Semaphore>,
    /// What was found the last time, for when a file cannot be read.
    last: Mutex<Option<Login>>,
}

impl Finder {
    pub(super) fn new(settings: LoginSettings) -> Self {
        Self {
            settings,
            turn: Arc::new(Semaphore::new(1)),
            last: Mutex::new(None),
        }
    }

    /// The first login there is for `host`. Files are read anew at each call, so that a change is seen at the next
    /// refresh; where one that had a login cannot be read, or is gone, that login goes on. What came out of a pipe is
    /// kept.
    ///
    /// # Errors
    /// [`Error::LoginUnreadable`] where a file cannot be read, or was asked for and is missing, and none was found before;
    /// [`Error::LoginFile`] where one cannot be used.
    pub(super) async fn find(&self, host: &Authority) -> Result<Option<Login>, Error> {
        let last = lock(&self.last).clone();
        if last.as_ref().is_some_and(|login| login.is_from_pipe) {
            return Ok(last);
        }
        match (self.look(host, last.is_some()).await, last) {
            (Err(error @ Error::LoginUnreadable { .. }), Some(last)) => {
                tracing::warn!("{error}; the login that was found there before is used");
                Ok(Some(last))
            }
            (found, _) => {
                if let Ok(login) = &found {
                    lock(&self.last).clone_from(login);
                }
                found
            }
        }
    }

    /// Looks apart from the runtime's own threads. Where no files are read, no other thread is needed, of which file
    /// systems that do not answer may have left none.
    async fn look(&self, host: &Authority, had_one: bool) -> Result<Option<Login>, Error> {
        if !self.settings.looks_at_files() {
            return self.settings.find_now(host, had_one);
        }
        let (settings, host) = (self.settings.clone(), host.clone());
        let look = async {
            let turn = Arc::clone(&self.turn).acquire_owned().await;
            let find = move || {
                let _turn = turn;
                settings.find_now(&host, had_one)
            };
            tokio::task::spawn_blocking(find).await
        };
        match tokio::time::timeout(READ_TIMEOUT, look).await {
            Ok(Ok(found)) => found,
            Ok(Err(panicked)) => Err(self.unreadable(&panicked.to_string())),
            Err(_) => Err(self.unreadable("the file system does not answer")),
        }
    }

    fn unreadable(&self, why: &str) -> Error {
        Error::LoginUnreadable {
            path: self.settings.places(),
            why: why.to_owned(),
        }
    }
}

impl LoginSettings {
    /// Whether it does before it has found a login.
    fn looks_at_files(&self) -> bool {
        let is_asked_for = self.token_file.is_some() || self.netrc.is_some();
        is_asked_for || (self.token.is_none() && self.user.is_none())
    }

    /// The first login there is for `host`; `had_one` if there was one before.
    fn find_now(&self, host: &Authority, had_one: bool) -> Result<Option<Login>, Error> {
        if let Some(path) = &self.token_file {
            return from_token_file(path).map(Some);
        }
        if let Some(path) = &self.netrc {
            return from_netrc(path, host);
        }
        let elsewhere = |proof, source: &str| Login {
            proof,
            source: source.to_owned(),
            changed: None,
            is_from_pipe: false,
            has_backslash: false,
        };
        if let Some(token) = &self.token {
            let proof = Proof::Token(token.clone());
            check_token(token, "EARTHDATA_TOKEN")?;
            return Ok(Some(elsewhere(proof, "EARTHDATA_TOKEN")));
        }
        if let Some((user, password)) = &self.user {
            let proof = Proof::Password {
                user: user.clone(),
                password: password.clone(),
            };
            let source = "EARTHDATA_USERNAME and EARTHDATA_PASSWORD";
            return Ok(Some(elsewhere(proof, source)));
        }
        match &self.default_netrc {
            // One that had a login is not just missing.
            Some(path) if had_one || !matches!(path.try_exists(), Ok(false)) => {
                from_netrc(path, host)
            }
            _ => Ok(None),
        }
    }

    /// The places that are looked at, for messages.
    pub(super) fn places(&self) -> String {
        if let Some(path) = self.token_file.as_ref().or(self.netrc.as_ref()) {
            return path.display().to_string();
        }
        let netrc = self.default_netrc.as_ref().map_or_else(
            || "no netrc file, because HOME is not set".to_owned(),
            |path| path.display().to_string(),
        );
        let user = match self.lacks {
            None => "EARTHDATA_USERNAME with EARTHDATA_PASSWORD".to_owned(),
            Some(variable) => format!(
                "EARTHDATA_USERNAME with EARTHDATA_PASSWORD, of which {variable} is not set"
            ),
        };
        format!("EARTHDATA_TOKEN; {user}; {netrc}")
    }

    /// Whether a netrc is to be used and nothing else.
    pub(super) fn wants_netrc(&self) -> bool {
        self.netrc.is_some() && self.token_file.is_none()
    }

    /// The netrc to put a login into, for messages.
    pub(super) fn netrc_to_write(&self) -> String {
        let path = self.netrc.as_ref().or(self.default_netrc.as_ref());
        path.map_or_else(|| "~/.netrc".to_owned(), |path| path.display().to_string())
    }
}

/// A bearer token as people keep it: with the line's end, or with the word of the header that it
/// goes into.
pub fn bare_token(text: &str) -> SecretString {
    let text = text.trim();
    let token = text.strip_prefix("Bearer ").unwrap_or(text);
    token.trim().to_owned().into()
}

fn from_token_file(path: &Path) -> Result<Login, Error> {
    let file = read_text(path)?;
    let token = bare_token(file.text.expose_secret());
    check_token(&token, &path.to_string_lossy())?;
    Ok(Login {
        proof: Proof::Token(token),
        source: path.display().to_string(),
        changed: file.changed,
        is_from_pipe: file.is_pipe,
        has_backslash: false,
    })
}

/// Whether it can stand in a header.
pub(super) fn check_token(token: &SecretString, place: &str) -> Result<(), Error> {
    let is_token = is_printable(token.expose_secret());
    is_token.then_some(()).ok_or_else(|| Error::LoginFile {
        path: place.to_owned(),
        why: "there should be one token of Earthdata Login and nothing else".to_owned(),
    })
}

fn from_netrc(path: &Path, host: &Authority) -> Result<Option<Login>, Error> {
    let file = read_text(path)?;
    let netrc = Netrc::parse(file.text.expose_secret());
    let netrc = netrc.map_err(|e| unusable(path, e.to_string()))?;
    let hosts = [host.as_str(), host.host()];
    let found = netrc.find(&hosts);
    if found.is_none()
        && let Some(what) = netrc.lacks(&hosts)
    {
        let why = format!("its entry for {} has no {what}", host.host());
        return Err(unusable(path, why));
    }
    Ok(found.map(|(user, password)| Login {
        proof: Proof::Password { user, password },
        source: path.display().to_string(),
        changed: file.changed,
        is_from_pipe: file.is_pipe,
        has_backslash: netrc.has_backslash(&hosts),
    }))
}

/// A file of logins as it was found.
struct Text {
    text: SecretString,
    changed: Option<SystemTime>,
    is_pipe: bool,
}

fn read_text(path: &Path) -> Result<Text, Error> {
    let read = || {
        let file = std::fs::File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.permissions().mode() & 0o044 != 0 {
            EXPOSED.call_once(|| {
                let path = path.display();
                tracing::warn!(
                    "others on this machine can read the login in {path}: chmod 600 {path}"
                );
            });
        }
        let changed = metadata.modified().ok();
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        Ok((bytes, changed, !metadata.is_file()))
    };
    let unreadable = |error: std::io::Error| Error::LoginUnreadable {
        path: path.display().to_string(),
        why: error.to_string(),
    };
    let (bytes, changed, is_pipe) = read().map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unusable(path, "it is larger than 1 MiB".to_owned()));
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| unusable(path, "it is not UTF-8 text".to_owned()))?;
    Ok(Text {
        text: text.into(),
        changed,
        is_pipe,
    })
}

fn unusable(path: &Path, why: String) -> Error {
    Error::LoginFile {
        path: path.display().to_string(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_as_people_paste_them() {
        for text in ["abc", " abc\n", "Bearer abc", "Bearer  abc\r\n"] {
            assert_eq!(bare_token(text).expose_secret(), "abc", "{text:?}");
        }
    }

    #[test]
    fn what_stands_in_variables_is_found_where_no_thread_is_left() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().max_blocking_threads(1).build();
        let runtime = runtime.expect("a runtime");
        let (release, hung) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || hung.recv());
        let host = Authority::parse("urs.earthdata.nasa.gov").expect("a host");
        let token = LoginSettings {
            token: Some("abc".into()),
            ..LoginSettings::default()
        };
        let user = LoginSettings {
            user: Some(("ada".to_owned(), "hunter2".into())),
            ..LoginSettings::default()
        };
        for settings in [token, user] {
            let finder = Finder::new(settings);
            let found = runtime.block_on(finder.find(&host));
            assert!(found.expect("in time").is_some(), "{finder:?}");
        }
        drop(release);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_system_that_does_not_answer_takes_one_thread_and_not_the_login() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("token");
        let host = Authority::parse("urs.earthdata.nasa.gov").expect("a host");
        let finder = Finder::new(LoginSettings {
            token_file: Some(path.clone()),
            ..LoginSettings::default()
        });
        let hangs = || Arc::clone(&finder.turn).try_acquire_owned();
        // As a look that does not come back has it.
        let turn = hangs().expect("nobody looks");
        let error = finder.find(&host).await.expect_err("no answer");
        assert!(error.to_string().contains("does not answer"), "{error}");
        drop(turn);
        std::fs::write(&path, "abc").expect("a file");
        let found = finder.find(&host).await.expect("readable");
        assert!(found.is_some());
        let turn = hangs().expect("nobody looks");
        assert_eq!(finder.find(&host).await.expect("as before"), found);
        drop(turn);
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(finder.find(&host).await.expect("as before"), found);
        // This one is there, and says what counts.
        std::fs::write(&path, "").expect("a file");
        assert!(finder.find(&host).await.is_err());
    }

    #[test]
    fn a_login_does_not_show_its_secrets() {
        let password = Proof::Password {
            user: "ada".to_owned(),
            password: "hunter2".into(),
        };
        for proof in [password, Proof::Token("hunter2".into())] {
            let login = Login {
                proof,
                source: "here".to_owned(),
                changed: None,
                is_from_pipe: false,
                has_backslash: false,
            };
            let shown = format!("{login:?}");
            assert!(
                !shown.contains("hunter2") && shown.contains("here"),
                "{shown}"
            );
        }
    }
}
