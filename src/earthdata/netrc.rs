//! netrc files, as Python's `netrc` module reads them.
//!
//! Tokens are parted by white space and may go over several lines; `"..."` quotes, a backslash takes
//! the next character as it is (to curl, outside of quotes, it is one like any other); `#` begins a
//! comment only where a `machine`, `default` or `macdef` could stand, so that passwords may hold it. No error ever
//! quotes the file.
//!
//! Written here and not taken from a crate: those that exist put the offending token, which may be
//! a password, into their errors and `Debug` output.

use std::fmt;

use secrecy::SecretString;

/// One `machine` (or the `default`) entry.
#[derive(Clone)]
struct Entry {
    /// `None` for `default`.
    host: Option<String>,
    login: Option<String>,
    password: Option<SecretString>,
    /// Whether the password was written with a backslash.
    has_backslash: bool,
}

/// Nothing of the password, not even how it is written.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("host", &self.host)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

/// The entries of a netrc file, in its order.
#[derive(Clone, Debug)]
pub struct Netrc {
    entries: Vec<Entry>,
}

/// Why a text is no netrc file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct NetrcError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

impl Netrc {
    /// Parses the text of a netrc file.
    ///
    /// # Errors
    /// Where a keyword was due and something else stands, or a value is missing.
    pub fn parse(text: &str) -> Result<Self, NetrcError> {
        let mut tokens = Tokens::new(text);
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(token) = tokens.keyword() {
            match token.as_str() {
                "machine" => {
                    let host = tokens.value("`machine` without a host name")?;
                    entries.push(Entry::new(Some(host)));
                }
                "default" => entries.push(Entry::new(None)),
                "macdef" => tokens.skip_macro(),
                "login" | "user" | "account" | "password" => {
                    let value = tokens.value("a keyword without its value")?;
                    let Some(entry) = entries.last_mut() else {
                        return Err(tokens.error("login or password before the first `machine`"));
                    };
                    match token.as_str() {
                        "password" => {
                            entry.password = Some(value.into());
                            entry.has_backslash = tokens.has_backslash;
                        }
                        "account" => {}
                        _ => entry.login = Some(value),
                    }
                }
                _ => {
                    return Err(tokens.error(
                        "expected machine, default, login, password, account or macdef \
                         (a password with blanks needs \"quotes\")",
                    ));
                }
            }
        }
        Ok(Self { entries })
    }

    /// Login and password for the first of `hosts` that has an entry with both, else the `default`.
    pub fn find(&self, hosts: &[&str]) -> Option<(String, SecretString)> {
        let entry = self.entry(hosts)?;
        Some((entry.login.clone()?, entry.password.clone()?))
    }

    /// Whether the password that is found for `hosts` is written with a backslash.
    pub fn has_backslash(&self, hosts: &[&str]) -> bool {
        self.entry(hosts).is_some_and(|entry| entry.has_backslash)
    }

    fn entry(&self, hosts: &[&str]) -> Option<&Entry> {
        let complete = |e: &&Entry| e.login.is_some() && e.password.is_some();
        let named = hosts.iter().find_map(|host| {
            let of_host = |e: &&Entry| {
                e.host
                    .as_deref()
                    .is_some_and(|h| h.eq_ignore_ascii_case(host))
            };
            self.entries.iter().filter(of_host).find(complete)
        });
        named.or_else(|| {
            let default = |e: &&Entry| e.host.is_none();
            self.entries.iter().filter(default).find(complete)
        })
    }

    /// What the first entry for one of `hosts` lacks.
    pub fn lacks(&self, hosts: &[&str]) -> Option<&'static str> {
        let is_one = |host: &str| hosts.iter().any(|one| one.eq_ignore_ascii_case(host));
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.host.as_deref().is_some_and(is_one))?;
        match entry {
            Entry { password: None, .. } => Some("password"),
            Entry { login: None, .. } => Some("login"),
            _ => None,
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Netrc {
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter_map(|entry| entry.host.as_deref())
    }

    /// As a file, with everything quoted, and another password for each if there is one.
    pub(super) fn written(&self, password: Option<&str>) -> String {
        use secrecy::ExposeSecret;

        let quoted = |text: &str| {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{escaped}\"")
        };
        let written = self.entries.iter().map(|entry| {
            let mut text = match &entry.host {
                Some(host) => format!("machine {}", quoted(host)),
                None => "default".to_owned(),
            };
            if let Some(login) = &entry.login {
                text += &format!(" login {}", quoted(login));
            }
            if let Some(held) = &entry.password {
                text += &format!(
                    " password {}",
                    quoted(password.unwrap_or(held.expose_secret()))
                );
            }
            text + "\n"
        });
        written.collect()
    }
}

impl Entry {
    fn new(host: Option<String>) -> Self {
        Self {
            host,
            login: None,
            password: None,
            has_backslash: false,
        }
    }
}

struct Tokens<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    /// Whether there was one in the last token.
    has_backslash: bool,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            rest: text.chars().peekable(),
            line: 1,
            has_backslash: false,
        }
    }

    fn error(&self, what: &'static str) -> NetrcError {
        NetrcError {
            line: self.line,
            what,
        }
    }

    fn next_char(&mut self) -> Option<char> {
        let c = self.rest.next();
        if c == Some('\n') {
            self.line += 1;
        }
        c
    }

    fn skip_blanks(&mut self) {
        while self.rest.peek().is_some_and(|c| c.is_whitespace()) {
            self.next_char();
        }
    }

    fn skip_line(&mut self) {
        while self.next_char().is_some_and(|c| c != '\n') {}
    }

    /// The next token where a keyword is due; comments are passed over.
    fn keyword(&mut self) -> Option<String> {
        loop {
            self.skip_blanks();
            match self.rest.peek()? {
                '#' => self.skip_line(),
                _ => return self.token(),
            }
        }
    }

    fn value(&mut self, missing: &'static str) -> Result<String, NetrcError> {
        self.skip_blanks();
        self.token().ok_or_else(|| self.error(missing))
    }

    fn token(&mut self) -> Option<String> {
        let mut token = String::new();
        self.has_backslash = false;
        let quoted = self.rest.next_if_eq(&'"').is_some();
        let mut any = quoted;
        loop {
            match self.rest.peek() {
                None => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(_) => {}
            }
            any = true;
            match self.next_char() {
                Some('"') if quoted => break,
                Some('\\') => {
                    self.has_backslash = true;
                    token.extend(self.next_char());
                }
                c => token.extend(c),
            }
        }
        any.then_some(token)
    }

    /// A macro goes up to the next empty line.
    fn skip_macro(&mut self) {
        self.skip_line();
        loop {
            let mut empty = true;
            loop {
                match self.next_char() {
                    None => return,
                    Some('\n') => break,
                    Some(c) => empty &= c.is_whitespace(),
                }
            }
            if empty {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn find(text: &str, host: &str) -> Option<(String, String)> {
        let (login, password) = Netrc::parse(text).expect("valid netrc").find(&[host])?;
        Some((login, password.expose_secret().to_owned()))
    }

    fn pair(login: &str, password: &str) -> Option<(String, String)> {
        Some((login.to_owned(), password.to_owned()))
    }

    #[test]
    fn one_line_and_many_lines() {
        let text =
            "machine a.org login ada password one\nmachine b.org\n  login\n  bob\n\tpassword two\n";
        assert_eq!(find(text, "a.org"), pair("ada", "one"));
        assert_eq!(find(text, "B.ORG"), pair("bob", "two"));
        assert_eq!(find(text, "c.org"), None);
    }

    #[test]
    fn hashes_quotes_backslashes() {
        let text = "# a comment machine x\nmachine a.org login ada password p#1 # tail\n\
                    machine b.org login bob password \"two words \\\" #\"\n\
                    machine c.org login cy password a\\ b\n";
        assert_eq!(find(text, "a.org"), pair("ada", "p#1"));
        assert_eq!(find(text, "b.org"), pair("bob", "two words \" #"));
        assert_eq!(find(text, "c.org"), pair("cy", "a b"));
        let netrc = Netrc::parse(text).expect("valid");
        let told = ["a.org", "b.org", "c.org", "d.org"].map(|host| netrc.has_backslash(&[host]));
        assert_eq!(told, [false, true, true, false]);
    }

    #[test]
    fn default_and_macros() {
        let text = "macdef init\ncd /tmp\nmachine fake login x password y\n\n\
                    machine a.org login ada\ndefault login dan password d\n";
        assert_eq!(find(text, "fake"), pair("dan", "d"));
        assert_eq!(find(text, "a.org"), pair("dan", "d"));
    }

    #[test]
    fn entries_lack_what_they_do_not_have() {
        let text = "machine a login x machine b password y machine c login x password y machine d";
        let netrc = Netrc::parse(text).expect("valid");
        let lacks = ["A", "b", "c", "d", "e"].map(|host| netrc.lacks(&[host, "z"]));
        let expected = [
            Some("password"),
            Some("login"),
            None,
            Some("password"),
            None,
        ];
        assert_eq!(lacks, expected);
    }

    #[test]
    fn errors_name_the_line_and_never_the_content() {
        let error = Netrc::parse("machine a.org login ada password\nhunter2 hunter3\n");
        let error = error.expect_err("hunter3 is no keyword");
        assert!(!format!("{error} {error:?}").contains("hunter"));
        assert_eq!(error.line, 2);
        assert_eq!(
            Netrc::parse("machine").expect_err("no host").what,
            "`machine` without a host name"
        );
        let parsed = Netrc::parse("machine a login b password hunter2").expect("valid");
        assert!(!format!("{parsed:?}").contains("hunter2"));
    }
}
