//! What holds whatever a user types.

use std::ffi::OsString;
use std::sync::OnceLock;
use std::time::Duration;

use super::{Command, command, dash_o, parse, takes_value, values};
use crate::earthdata::Table;

fn args(text: &str) -> Vec<OsString> {
    // No argument of a process holds a NUL.
    let lines = text.split('\n').filter(|line| !line.contains('\0'));
    lines.map(OsString::from).collect()
}

pub(crate) fn dash_o(text: &str) {
    static COMMAND: OnceLock<clap::Command> = OnceLock::new();
    let command = COMMAND.get_or_init(command);
    let takes_value = |name: &str| takes_value(command, name);
    let typed = args(text);
    let expanded = match dash_o::expand(typed.clone(), takes_value) {
        Ok(expanded) => expanded,
        Err(message) => {
            assert!(message.contains("-o"), "{message}");
            return;
        }
    };
    let ends = |args: &[OsString]| {
        args.iter()
            .position(|arg| arg == "--")
            .unwrap_or(args.len())
    };
    let (own, rest) = expanded.split_at(ends(&expanded));
    assert_eq!(rest, &typed[ends(&typed)..], "behind --");
    for arg in own.iter().filter(|arg| !typed.contains(arg)) {
        let arg = arg.to_str().expect("UTF-8");
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg, None),
        };
        let name = name.strip_prefix("--").expect("a long option");
        assert_eq!(takes_value(name), Some(value.is_some()), "{arg}");
    }
    assert!(
        own.iter()
            .all(|arg| !arg.to_string_lossy().starts_with("-o")),
        "{own:?}"
    );
    assert_eq!(dash_o::expand(expanded.clone(), takes_value), Ok(expanded));
}

pub(crate) fn command_line(text: &str) {
    static TABLE: OnceLock<Table> = OnceLock::new();
    let table = TABLE.get_or_init(Table::built_in);
    let all = ["s3credmount".into()].into_iter().chain(args(text));
    let command = match parse(all, table) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
        Ok(Err(message)) => {
            assert!(!message.is_empty());
            return;
        }
        Ok(Ok(command)) => command,
    };
    let Command::Mount(run) = command else {
        return;
    };
    let config = &run.mount;
    assert!(config.file_mode <= 0o777 && config.dir_mode <= 0o777);
    assert!(config.memory_limit >= 16 << 20 && config.operation_timeout >= Duration::from_secs(1));
    assert!((1..=65_535).contains(&config.s3.max_connections));
    if let Some(url) = &config.s3.endpoint_url {
        crate::network::check_url(url.as_str()).expect("checked");
    }
    assert!(crate::network::is_region(&config.s3.region));
}

pub(crate) fn values(text: &str) {
    if let Ok(seconds) = values::seconds(text) {
        let written = seconds.as_secs().to_string();
        assert_eq!(values::seconds(&written), Ok(seconds));
        assert_eq!(values::operation_timeout(text).is_ok(), !seconds.is_zero());
    }
    if let Ok(duration) = values::duration(text)
        && duration < Duration::MAX
    {
        let written = humantime::format_duration(duration).to_string();
        assert_eq!(values::duration(&written), Ok(duration), "{written}");
    }
    if let Ok(bytes) = values::memory_limit(text) {
        assert!(bytes >= 16 << 20);
        let written = format!("{bytes}B");
        assert_eq!(values::memory_limit(&written), Ok(bytes), "{written}");
    }
    if let Ok(region) = values::region(text) {
        let host = format!("https://s3.{region}.amazonaws.com/");
        assert!(
            region == text
                && host
                    .parse::<reqwest::Url>()
                    .is_ok_and(|url| url.path() == "/")
        );
    }
    if let Ok(mode) = values::mode(text) {
        assert!(mode <= 0o777);
        assert_eq!(values::mode(&format!("{mode:o}")), Ok(mode));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parsers::soup;

    const ARGS: &[&str] = &[
        "\n",
        "\n-o\n",
        "\n-o",
        "--\n",
        ",",
        "=",
        "ro",
        "allow_other",
        "uid=7",
        "netrc=/a=b",
        "_netdev",
        "x-systemd.automount",
        "prod-lads",
        "/mnt",
        "--memory-limit=",
        "1GiB",
        "--metadata-ttl\n",
        "inf",
        "--region=",
        "us-west-2",
        "--no-sign-request\n",
        "check\n",
        "buckets\n",
        "--endpoint-url\n",
        "https://x.org",
        "-v",
        "foreground",
        "--help",
    ];
    const VALUES: &[&str] = &[
        "0",
        "1",
        "9",
        "18446744073709551615",
        "1e",
        "+",
        "-",
        ".",
        "5",
        "s",
        "ms",
        "h",
        "min",
        "months",
        "y",
        " ",
        "inf",
        "KiB",
        "MiB",
        "GiB",
        "EiB",
        "B",
        "k",
        "NaN",
        "0444",
        "us-west-2",
        "_",
        "x",
    ];

    proptest! {
        #[test]
        fn lists_of_options_become_own_options(text in soup(ARGS)) {
            dash_o(&text);
            command_line(&text);
            command_line(&format!("prod-lads\n/mnt\n{text}"));
        }

        #[test]
        fn values_are_read_back_as_written(text in soup(VALUES), words in prop::collection::vec(
            prop::sample::select(VALUES), 1..4)) {
            values(&text);
            values(&words.concat());
        }
    }
}
