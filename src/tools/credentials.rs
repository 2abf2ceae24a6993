//! `s3credmount credentials`: prints credentials once, for other programs to use.
//!
//! Formats: AWS's `credential_process` (docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html),
//! the shell lines of `aws configure export-credentials --format env`, and the JSON of
//! `/s3credentials` itself (TEA docs/s3access.md).

use std::io::{self, Write};
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{cannot_print, first_credentials};
use crate::credentials::{self, Credentials, Manager};
use crate::network::Network;

/// What to print.
#[derive(Debug)]
pub struct Config {
    /// For which bucket, for messages.
    pub bucket: String,
    /// Where credentials come from.
    pub credentials: credentials::Settings,
    /// Certificates and the like.
    pub network: Network,
    /// How.
    pub format: Format,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For `credential_process` in AWS's configuration.
    Process,
    /// For a shell: `eval "$(...)"`.
    Env,
    /// As `/s3credentials` has it.
    Json,
}

/// Gets credentials and prints them to stdout.
///
/// # Errors
/// A message for the user; then nothing was printed.
pub async fn run(config: &Config) -> Result<(), String> {
    let settings = &config.credentials;
    let manager = Manager::open(settings, &config.network).map_err(|error| error.to_string())?;
    let credentials = first_credentials(&manager, &config.bucket, settings.policy.wait).await?;
    let text = text(config.format, &credentials, manager.end(&credentials));
    let mut out = io::stdout().lock();
    out.write_all(text.expose_secret().as_bytes())
        .and_then(|()| out.flush())
        .map_err(cannot_print)
}

/// What to print of credentials that end at `end`.
fn text(format: Format, credentials: &Credentials, end: SystemTime) -> SecretString {
    let key = &credentials.access_key_id;
    let secret = credentials.secret_access_key.expose_secret();
    let token = credentials.session_token.expose_secret();
    let end = humantime::format_rfc3339_seconds(end).to_string();
    let text = match format {
        Format::Process => json!({
            "Version": 1,
            "AccessKeyId": key,
            "SecretAccessKey": secret,
            "SessionToken": token,
            "Expiration": end,
        })
        .to_string(),
        Format::Json => json!({
            "accessKeyId": key,
            "secretAccessKey": secret,
            "sessionToken": token,
            // 2021-01-27 00:50:09+00:00
            "expiration": end.replace('T', " ").replace('Z', "+00:00"),
        })
        .to_string(),
        Format::Env => [
            ("AWS_ACCESS_KEY_ID", key.as_str()),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_SESSION_TOKEN", token),
            ("AWS_CREDENTIAL_EXPIRATION", &end),
        ]
        .map(|(name, value)| format!("export {name}={}", quoted(value)))
        .join("\n"),
    };
    format!("{text}\n").into()
}

/// As one word of a shell, whatever is in it.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_read_back_what_was_quoted() {
        for value in ["plain/+=", "it's", "$(date)`x`\\\"", "''"] {
            let script = format!("printf %s {}", quoted(value));
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            let output = output.expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), value);
        }
    }
}
