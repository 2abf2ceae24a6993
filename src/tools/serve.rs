//! `s3credmount serve-credentials`: credentials over HTTP on loopback, in AWS's container format.
//!
//! AWS's libraries ask the URL in `AWS_CONTAINER_CREDENTIALS_FULL_URI` whenever theirs come to an end,
//! with the content of the file that `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` names in the
//! `Authorization` header (docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html).
//! Every user of a machine can reach its loopback, so that token is what keeps others out; it is made
//! anew at each start, and is in a file of mode 0600 and nowhere else. A `Host` that is not this machine
//! is refused: a browser may have been led here by a name that somebody else owns.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use reqwest::Url;
use sd_notify::NotifyState;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;

use super::credentials::quoted;
use super::{cannot_print, first_credentials};
use crate::credentials::{self, Manager};
use crate::network::{self, Network};
use crate::process::Signals;

/// How long a client may take to send its request.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers that are under way keep a process that was told to end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Temporary directories are cleaned of files that were not touched for days.
const TOUCH: Duration = Duration::from_secs(12 * 3600);

/// What to serve, and where.
#[derive(Debug)]
pub struct Config {
    /// For which bucket, for messages.
    pub bucket: String,
    /// Where credentials come from.
    pub credentials: credentials::Settings,
    /// Certificates and the like.
    pub network: Network,
    /// A loopback address.
    pub listen: SocketAddr,
}

/// Serves until a signal asks for the end. Once it can, it prints how to use it, as lines for a shell,
/// and closes standard output.
///
/// # Errors
/// A message for the user.
pub async fn run(config: &Config) -> Result<(), String> {
    let mut signals = Signals::listen().map_err(|error| format!("cannot start: {error}"))?;
    let settings = &config.credentials;
    let listener = TcpListener::bind(config.listen).await;
    let cannot_listen = |error: io::Error| {
        let listen = config.listen;
        format!("cannot listen on {listen}: {error}. Choose another port with --listen")
    };
    let listener = listener.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let manager = Manager::open(settings, &config.network).map_err(|error| error.to_string())?;
    tokio::select! {
        first = first_credentials(&manager, &config.bucket, settings.policy.wait) => first?,
        _ = signals.any() => return Ok(()),
    };
    let token = Token::create()?;
    announce(address, &token).map_err(cannot_print)?;
    tracing::info!(%address, "serving credentials of {}", settings.endpoint.endpoint);
    let desk = Arc::new(Desk {
        manager,
        token: token.text.clone(),
    });
    let connections = GracefulShutdown::new();
    let mut touch = tokio::time::interval(TOUCH);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let desk = Arc::clone(&desk);
                    let answer = move |request| {
                        let desk = Arc::clone(&desk);
                        async move { Ok::<_, Infallible>(desk.answer(&request).await) }
                    };
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADERS_TIMEOUT)
                        .serve_connection(TokioIo::new(stream), service_fn(answer));
                    // An error is the client's, which sees it as a closed connection.
                    tokio::spawn(connections.watch(connection));
                }
                // Out of file descriptors, or a client that has gone: the next one may do better.
                Err(error) => {
                    tracing::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            _ = touch.tick() => token.touch(),
            name = signals.any() => {
                tracing::info!("{name}: ending");
                break;
            }
        }
    }
    let _ = tokio::time::timeout(LAST_ANSWERS, connections.shutdown()).await;
    Ok(())
}

/// Prints what a shell needs, and closes standard output, so that `eval "$(... &)"` goes on.
fn announce(address: SocketAddr, token: &Token) -> io::Result<()> {
    let path = quoted(&token.file.path().to_string_lossy());
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "export AWS_CONTAINER_CREDENTIALS_FULL_URI=http://{address}/"
    )?;
    writeln!(out, "export AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={path}")?;
    // To end it with, as ssh-agent has it.
    let pid = std::process::id();
    writeln!(out, "export S3CREDMOUNT_SERVER_PID={pid}")?;
    out.flush()?;
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    // Fails where there is no systemd, which is fine.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    Ok(())
}

/// What clients prove with that they are this user's; its file goes with it.
struct Token {
    text: SecretString,
    file: NamedTempFile,
}

impl Token {
    /// Makes a new one, in a file of the runtime directory, or else of the temporary one.
    fn create() -> Result<Self, String> {
        let text = credentials::random_key().map_err(|error| error.to_string())?;
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let runtime = runtime.filter(|path| path.is_absolute());
        let mut why = Vec::new();
        for directory in runtime.into_iter().chain([std::env::temp_dir()]) {
            match file_in(&directory, &text) {
                Ok(file) => return Ok(Self { text, file }),
                Err(error) => why.push(format!("{}: {error}", directory.display())),
            }
        }
        Err(format!(
            "cannot write a file for the authorization token ({}). Name a directory that takes it by TMPDIR",
            why.join("; ")
        ))
    }

    fn touch(&self) {
        let touched = self.file.as_file().set_modified(SystemTime::now());
        if let Err(error) = touched {
            tracing::warn!("cannot touch {}: {error}", self.file.path().display());
        }
    }
}

/// A new file in `directory` that holds `text`.
fn file_in(directory: &Path, text: &SecretString) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix("s3credmount-")
        .suffix(".token")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.write_all(text.expose_secret().as_bytes())?;
    Ok(file)
}

/// Answers requests.
struct Desk {
    manager: Manager,
    token: SecretString,
}

impl Desk {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let headers = request.headers();
        if !is_for_this_machine(headers) {
            let text = "ask by 127.0.0.1, ::1 or localhost";
            return refusal(StatusCode::FORBIDDEN, "WrongHost", text);
        }
        if !self.is_authorized(headers) {
            tracing::warn!("somebody asked for credentials without the right token");
            let text =
                "set AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE to what serve-credentials printed";
            return refusal(StatusCode::UNAUTHORIZED, "NotAuthorized", text);
        }
        if request.method() != Method::GET || request.uri().path() != "/" {
            return refusal(
                StatusCode::NOT_FOUND,
                "NotFound",
                "only GET / has an answer",
            );
        }
        match self.manager.current().await {
            Ok(credentials) => {
                let end = self.manager.end(&credentials);
                let body = json!({
                    "AccessKeyId": credentials.access_key_id,
                    "SecretAccessKey": credentials.secret_access_key.expose_secret(),
                    "Token": credentials.session_token.expose_secret(),
                    "Expiration": humantime::format_rfc3339_seconds(end).to_string(),
                });
                reply(StatusCode::OK, &body)
            }
            Err(error) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                refusal(status, "CredentialsUnavailable", &error.to_string())
            }
        }
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let token = self.token.expose_secret().as_bytes();
        // In a time that tells nothing of how much of it was right.
        sent.is_some_and(|sent| sent.ct_eq(token).into())
    }
}

fn is_for_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(names_this_machine)
}

/// Whether `HOST` or `HOST:PORT` is an address or name that no other machine has.
pub(super) fn names_this_machine(host: &str) -> bool {
    // URLs have names before the host and paths behind it; a `Host` header has not.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    let url = Url::parse(&format!("http://{host}/"));
    host.bytes().all(is_plain) && url.is_ok_and(|url| network::is_loopback(&url))
}

/// An error as AWS's libraries read it.
fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    reply(status, &json!({ "code": code, "message": message }))
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
