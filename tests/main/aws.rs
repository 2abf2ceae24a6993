//! The `aws` command line, with our credentials, as `docs/credentials.md` says.
//!
//! `scripts/test` installs it from PyPI into the user's cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use mock_earthdata::{Content, DEFAULT_TOKEN, World};
use tempfile::TempDir;

use crate::support::{BUCKET, bare_program, eventually, world_with};

/// Where `aws` is; says so if it is nowhere.
fn aws() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let own = cache.map(|cache| cache.join("s3credmount-test/awscli/bin/aws"));
    let candidates = own.into_iter().chain([PathBuf::from("aws")]);
    let runs = |path: &PathBuf| {
        let version = Command::new(path).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    };
    let found = candidates.into_iter().find(runs);
    if found.is_none() {
        eprintln!("SKIPPED: no aws (scripts/test installs it, where PyPI can be reached)");
    }
    found
}

/// A home with a token, and a script that runs our program with what leads it to the mock.
struct Home {
    directory: TempDir,
    world: World,
}

impl Home {
    fn new() -> Self {
        Self::with_lifetime(Duration::from_secs(3600))
    }

    fn with_lifetime(lifetime: Duration) -> Self {
        let objects = [("granules/a.nc", Content::from("content of a granule"))];
        let world = world_with(objects, |settings| settings.lifetime = lifetime);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = Self { directory, world };
        std::fs::write(home.path("token"), DEFAULT_TOKEN).expect("written");
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The options that lead our program to the mock.
    fn options(&self) -> String {
        format!(
            "--credentials-endpoint {} --earthdata-host {} --token-file {}",
            self.world.cumulus_endpoint(),
            self.world.earthdata_host(),
            self.path("token").display()
        )
    }

    /// `program` in an environment that has nothing of AWS but this home's configuration.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AWS_") || text.starts_with("EARTHDATA_") {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", self.directory.path())
            .env("AWS_CONFIG_FILE", self.path("config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", self.path("none"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("S3CREDMOUNT_CREDENTIALS_CACHE", "none")
            .env("AWS_ENDPOINT_URL_S3", self.world.s3_url());
        command
    }
}

fn program() -> String {
    let program = bare_program();
    program.get_program().to_str().expect("UTF-8").to_owned()
}

fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The lines of the document from the one that holds `first` on, without their indentation, up to the
/// end of the block.
fn snippet(first: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/credentials.md");
    let document = std::fs::read_to_string(path).expect("docs/credentials.md");
    let lines = document.lines().skip_while(|line| !line.contains(first));
    let block = lines.map_while(|line| line.strip_prefix("    "));
    let block: Vec<_> = block.collect();
    assert!(!block.is_empty(), "docs/credentials.md lacks {first}");
    block.join("\n") + "\n"
}

const IN_DOCUMENT: &str = "s3credmount credentials podaac-ops-cumulus-protected";

#[test]
fn credential_process_as_documented_lists_and_copies() {
    let Some(aws) = aws() else { return };
    let home = Home::new();
    let config = snippet("[profile podaac]");
    assert!(
        config.contains(&format!("/usr/local/bin/{IN_DOCUMENT}")),
        "{config}"
    );
    let config = config.replace(
        &format!("/usr/local/bin/{IN_DOCUMENT}"),
        &format!("{} credentials {BUCKET} {}", program(), home.options()),
    );
    std::fs::write(home.path("config"), config).expect("written");
    let run = |args: &[&str]| {
        let mut command = home.command(&aws);
        command.args(["--profile", "podaac", "s3"]).args(args);
        said(&command.output().expect("it runs"))
    };
    let url = format!("s3://{BUCKET}/granules/");
    assert!(run(&["ls", &url]).contains("a.nc"));
    let copied = run(&["cp", &format!("{url}a.nc"), "-"]);
    assert_eq!(copied, "content of a granule");
    assert_eq!(home.world.counters().forbidden_operations, 0);
}

#[test]
fn credential_process_that_fails_tells_why() {
    let Some(aws) = aws() else { return };
    let home = Home::new();
    std::fs::write(home.path("token"), mock_earthdata::REVOKED_TOKEN).expect("written");
    let config = format!(
        "[default]\nregion = us-west-2\ncredential_process = {} credentials {BUCKET} {}\n",
        program(),
        home.options()
    );
    std::fs::write(home.path("config"), config).expect("written");
    let output = home.command(&aws).args(["s3", "ls"]).output();
    let output = output.expect("it runs");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("does not accept the token"), "{error}");
    assert!(!error.contains(mock_earthdata::REVOKED_TOKEN));
}

#[test]
fn a_shell_as_documented_serves_credentials_to_its_programs() {
    let Some(aws) = aws() else { return };
    let home = Home::new();
    let in_document = "s3credmount serve-credentials podaac-ops-cumulus-protected";
    let script = snippet(in_document);
    let script = script.replace(
        in_document,
        &format!(
            "{} serve-credentials {BUCKET} {}",
            program(),
            home.options()
        ),
    );
    let script = script.replace("podaac-ops-cumulus-protected", BUCKET);
    let script = script.replace("MUR-JPL-L4-GLOB-v4.1/", "granules/");
    let mut command = home.command(Path::new("sh"));
    let path = std::env::var("PATH").unwrap_or_default();
    let directory = aws.parent().unwrap_or(Path::new("")).display().to_string();
    command.env("PATH", format!("{directory}:{path}"));
    command.env("AWS_REGION", "us-west-2");
    command.env("XDG_RUNTIME_DIR", home.directory.path());
    // The server must not hold a pipe that this waits for.
    let log = home.path("log");
    command.stderr(std::fs::File::create(&log).expect("a log file"));
    let output = command.arg("-ec").arg(&script).output().expect("a shell");
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(output.status.success(), "{script}{log}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("a.nc"));
    assert_eq!(home.world.counters().credentials_issued, 1);
    let is_serving = || {
        let entries = std::fs::read_dir(home.directory.path()).expect("a directory");
        let mut names = entries.map(|entry| entry.expect("an entry").file_name());
        names.any(|name| name.to_string_lossy().ends_with(".token"))
    };
    eventually("the script's end ends the server", || !is_serving());
}

/// Reads for two lives and a half of the credentials, as boto3 does, and prints how often.
const READER: &str = "
import sys, time, botocore.session
client = botocore.session.Session().create_client('s3', region_name='us-west-2')
begin, reads = time.monotonic(), 0
while time.monotonic() < begin + 2.5 * float(sys.argv[2]):
    body = client.get_object(Bucket=sys.argv[1], Key='granules/a.nc')['Body'].read()
    assert body == b'content of a granule'
    reads += 1
    time.sleep(0.1)
print(reads)
";

/// Runs [`READER`] behind a line of shell, in which `AWS_CONFIG_FILE` holds `config`.
fn reads_on(shell: &str, config: &str) {
    const LIFETIME: u64 = 6;
    let Some(aws) = aws() else { return };
    let python = aws.with_file_name("python");
    let has_botocore = Command::new(&python)
        .args(["-c", "import botocore"])
        .output();
    if !has_botocore.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no botocore beside {}", aws.display());
        return;
    }
    let home = Home::with_lifetime(Duration::from_secs(LIFETIME));
    let adapted = |text: &str| {
        let text = text.replace("PROGRAM", &program());
        text.replace("OPTIONS", &format!("{BUCKET} {}", home.options()))
    };
    std::fs::write(home.path("config"), adapted(config)).expect("written");
    let mut command = home.command(Path::new("sh"));
    command.env("XDG_RUNTIME_DIR", home.directory.path());
    command.stderr(std::fs::File::create(home.path("log")).expect("a log file"));
    command
        .arg("-ec")
        .arg(format!("{}\n\"$@\"", adapted(shell)));
    command.arg("sh").arg(python).args(["-c", READER]);
    let output = command.args([BUCKET, &LIFETIME.to_string()]).output();
    let output = output.expect("a shell");
    let log = std::fs::read_to_string(home.path("log")).expect("a log");
    assert!(output.status.success(), "{log}");
    let reads: u32 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("a number");
    assert!(reads > 2, "{reads} reads\n{log}");
    assert!(home.world.counters().credentials_issued >= 3);
}

#[test]
fn a_program_of_aws_reads_on_when_credentials_of_a_process_expire() {
    let config = "[default]\ncredential_process = PROGRAM credentials OPTIONS\n";
    reads_on("", config);
}

#[test]
fn a_program_of_aws_reads_on_when_credentials_of_a_server_expire() {
    let shell = "eval \"$(PROGRAM serve-credentials OPTIONS &)\"\n\
                 trap 'kill \"$S3CREDMOUNT_SERVER_PID\"' EXIT";
    reads_on(shell, "");
}
