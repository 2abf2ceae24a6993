//! The options that say how to get at a bucket: shared by the mount and the tools.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgAction;
use clap::Args;
use secrecy::ExposeSecret;

use super::values;
use crate::credentials::{self, Policy, Sharing};
use crate::earthdata::{self, LoginSettings, Table};
use crate::network;
use crate::s3;

/// How to read a bucket: with which credentials, if any, and from where.
#[derive(Debug, Args)]
pub(super) struct BucketArgs {
    #[command(flatten)]
    credentials: CredentialArgs,

    /// Send requests unsigned, to a bucket that is public: no login, no credentials
    #[arg(
        long,
        env = "S3CREDMOUNT_NO_SIGN_REQUEST",
        help_heading = "Credentials"
    )]
    #[arg(action = ArgAction::SetTrue, value_parser = values::switch)]
    no_sign_request: bool,

    #[command(flatten)]
    s3: S3Args,
}

/// Where credentials come from.
#[derive(Debug, Args)]
pub(super) struct CredentialArgs {
    /// The /s3credentials endpoint [default: looked up from the bucket in the table of buckets]
    #[arg(long, value_name = "URL", env = "S3CREDMOUNT_CREDENTIALS_ENDPOINT")]
    #[arg(help_heading = "Credentials")]
    credentials_endpoint: Option<String>,

    /// A file that holds a token of Earthdata Login; read anew at each refresh
    #[arg(
        long,
        value_name = "FILE",
        env = "S3CREDMOUNT_TOKEN_FILE",
        help_heading = "Credentials"
    )]
    token_file: Option<PathBuf>,

    /// A netrc file; read anew at each refresh [default: $NETRC, else ~/.netrc]
    #[arg(
        long,
        value_name = "FILE",
        env = "S3CREDMOUNT_NETRC",
        help_heading = "Credentials"
    )]
    netrc: Option<PathBuf>,

    /// The Earthdata Login host [default: urs.earthdata.nasa.gov, or the UAT one for test buckets]
    #[arg(long, value_name = "HOST", env = "S3CREDMOUNT_EARTHDATA_HOST")]
    #[arg(help_heading = "Credentials")]
    earthdata_host: Option<String>,

    /// Where the processes of this user share credentials, or none [default:
    /// $XDG_RUNTIME_DIR/s3credmount, else s3credmount-UID in the temporary directory]
    #[arg(long, value_name = "DIR", env = "S3CREDMOUNT_CREDENTIALS_CACHE")]
    #[arg(help_heading = "Credentials")]
    credentials_cache: Option<PathBuf>,

    /// How long a read waits for valid credentials, in seconds
    #[arg(long, value_name = "SECONDS", env = "S3CREDMOUNT_CREDENTIAL_WAIT")]
    #[arg(default_value = "45", value_parser = values::seconds, help_heading = "Credentials")]
    credential_wait: Duration,
}

/// Where the bucket is.
#[derive(Debug, Args)]
struct S3Args {
    /// Another S3 server than AWS's
    #[arg(
        long,
        value_name = "URL",
        env = "S3CREDMOUNT_ENDPOINT_URL",
        help_heading = "S3"
    )]
    endpoint_url: Option<String>,

    /// The bucket's region [default: the one in the table of buckets, else us-west-2]
    #[arg(
        long,
        value_name = "NAME",
        env = "S3CREDMOUNT_REGION",
        help_heading = "S3"
    )]
    #[arg(value_parser = values::region)]
    region: Option<String>,

    /// Put the bucket into the URL's path; follows by itself for addresses and localhost
    #[arg(long, env = "S3CREDMOUNT_FORCE_PATH_STYLE", help_heading = "S3")]
    #[arg(action = ArgAction::SetTrue, value_parser = values::switch)]
    force_path_style: bool,

    /// How many requests may be under way at once; each takes up to 0.4 MiB beside --memory-limit
    #[arg(
        long,
        value_name = "N",
        env = "S3CREDMOUNT_MAX_CONNECTIONS",
        help_heading = "S3"
    )]
    #[arg(default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,

    /// Ask for no checksums: small files are believed as they come
    #[arg(long, env = "S3CREDMOUNT_NO_CHECKSUMS", help_heading = "S3")]
    #[arg(action = ArgAction::SetTrue, value_parser = values::switch)]
    no_checksums: bool,
}

impl BucketArgs {
    /// Settings for the credentials of `bucket`, unless requests are to be unsigned, and for its client.
    pub(super) fn settings(
        self,
        bucket: &str,
        table: &Table,
    ) -> Result<(Option<credentials::Settings>, s3::Settings), String> {
        let credentials = match self.no_sign_request {
            true => None,
            false => Some(self.credentials.settings(bucket, table)?),
        };
        Ok((credentials, self.s3.settings(bucket, table)?))
    }
}

impl CredentialArgs {
    /// Settings for the credentials of `bucket`.
    pub(super) fn settings(
        self,
        bucket: &str,
        table: &Table,
    ) -> Result<credentials::Settings, String> {
        let row = table.find(bucket);
        let endpoint = self
            .credentials_endpoint
            .or_else(|| row.map(|row| row.endpoint().to_owned()))
            .ok_or_else(|| unknown_bucket(bucket, table))?;
        let login_host = self
            .earthdata_host
            .unwrap_or_else(|| earthdata::login_host_for(&endpoint).to_owned());
        Ok(credentials::Settings {
            endpoint: earthdata::Settings {
                endpoint,
                login_host,
                login: login_settings(self.token_file, self.netrc)?,
            },
            sharing: Sharing {
                directories: shared_in(self.credentials_cache)?,
                always_fetch: false,
            },
            policy: Policy {
                wait: self.credential_wait,
                ..Policy::default()
            },
        })
    }
}

impl S3Args {
    /// Settings for the client of `bucket`.
    fn settings(self, bucket: &str, table: &Table) -> Result<s3::Settings, String> {
        let row = table.find(bucket);
        let region = self
            .region
            .or_else(|| row.map(|row| row.region().to_owned()));
        let endpoint_url = self
            .endpoint_url
            .as_deref()
            .map(network::check_url)
            .transpose();
        Ok(s3::Settings {
            bucket: bucket.to_owned(),
            region: region.unwrap_or_else(|| "us-west-2".to_owned()),
            endpoint_url: endpoint_url.map_err(|bad| format!("--endpoint-url: {bad}"))?,
            force_path_style: self.force_path_style,
            max_connections: usize::from(self.max_connections),
            checksums: !self.no_checksums,
        })
    }
}

/// In the background the working directory is another.
pub(super) fn absolute(path: PathBuf) -> Result<PathBuf, String> {
    std::path::absolute(&path).map_err(|error| {
        format!(
            "{} means nothing in the working directory, which cannot be found ({error}): change to one \
             that exists, or give the whole path",
            path.display()
        )
    })
}

fn unknown_bucket(bucket: &str, table: &Table) -> String {
    format!(
        "the bucket {bucket} is not in the table of Earthdata buckets. The nearest names there are \
         {}. If the name is right, say which endpoint grants credentials for it: \
         --credentials-endpoint https://HOST/s3credentials; or get a new table: s3credmount buckets \
         --refresh",
        table.nearest(bucket).join(", ")
    )
}

/// The directories in which to share credentials. One that was asked for must do; of those by default
/// the home directory is none: it is often on a file server.
fn shared_in(asked: Option<PathBuf>) -> Result<Vec<PathBuf>, String> {
    if let Some(directory) = asked {
        if directory.as_os_str() == "none" {
            return Ok(Vec::new());
        }
        let directory = absolute(directory)?;
        credentials::check_directory(&directory).map_err(|error| {
            format!(
                "credentials cannot be shared: {error}. Name another directory with \
                 --credentials-cache, or none"
            )
        })?;
        return Ok(vec![directory]);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|path| path.is_absolute());
    let temporary = format!("s3credmount-{}", nix::unistd::geteuid());
    Ok(runtime
        .map(|path| path.join("s3credmount"))
        .into_iter()
        .chain([std::env::temp_dir().join(temporary)])
        .collect())
}

/// Logins come from the environment and from files, never from arguments: those are seen by every
/// user of the machine.
fn login_settings(
    token_file: Option<PathBuf>,
    netrc: Option<PathBuf>,
) -> Result<LoginSettings, String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let token = variable("EARTHDATA_TOKEN").map(|token| earthdata::bare_token(&token));
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let (name, password) = (
        variable("EARTHDATA_USERNAME"),
        variable("EARTHDATA_PASSWORD"),
    );
    let lacks = match (&name, &password) {
        (Some(_), None) => Some("EARTHDATA_PASSWORD"),
        (None, Some(_)) => Some("EARTHDATA_USERNAME"),
        _ => None,
    };
    let user = name.zip(password);
    let default_netrc = variable("NETRC").map(PathBuf::from);
    let default_netrc = default_netrc.or_else(|| Some(PathBuf::from(home?).join(".netrc")));
    Ok(LoginSettings {
        token_file: token_file.map(absolute).transpose()?,
        netrc: netrc.map(absolute).transpose()?,
        token: token.filter(|token| !token.expose_secret().is_empty()),
        user: user.map(|(name, password)| (name, password.into())),
        lacks,
        default_netrc: default_netrc.map(absolute).transpose()?,
    })
}
