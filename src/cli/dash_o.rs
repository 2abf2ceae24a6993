//! `-o a,b=c`, as mount(8) and fstab pass options: made into the program's own before they are
//! parsed, so that there is one parser and one set of names.

use std::ffi::OsString;

/// Options of mount(8) that this mount honours by being what it is (read-only, nosuid, nodev), that
/// other programs look at (`_netdev`), or that make no difference to it.
const HARMLESS: &[&str] = &[
    "_netdev",
    "async",
    "atime",
    "auto",
    "auto_unmount",
    "default_permissions",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "group",
    "lazytime",
    "loud",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "noexec",
    "nofail",
    "nolazytime",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "owner",
    "relatime",
    "ro",
    "rw",
    "silent",
    "strictatime",
    "suid",
    "sync",
    "user",
    "users",
];
/// The same, with a value.
const HARMLESS_WITH_VALUE: &[&str] = &[
    "blksize", "comment", "fsname", "max_read", "subtype", "user",
];

/// How to say `--exec` behind mount(8), which keeps `exec` to itself.
const EXEC: &str = "allow_exec";

/// Replaces each `-o LIST` by the options that it names. `takes_value` tells of each of the program's
/// own long options whether it has a value.
///
/// # Errors
/// A message that names the option that is not known.
pub(super) fn expand(
    args: impl IntoIterator<Item = OsString>,
    takes_value: impl Fn(&str) -> Option<bool>,
) -> Result<Vec<OsString>, String> {
    let mut expanded = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let list = match arg.to_str() {
            Some("--") => {
                expanded.push(arg);
                expanded.extend(args);
                break;
            }
            Some("-o") => args.next().ok_or("-o needs a list of options")?,
            Some(text) if text.starts_with("-o") => OsString::from(&text[2..]),
            _ => {
                expanded.push(arg);
                continue;
            }
        };
        let list = list
            .into_string()
            .map_err(|_| "the options behind -o are not UTF-8")?;
        for option in list.split(',').filter(|option| !option.is_empty()) {
            expanded.extend(own_option(option, &takes_value)?.map(OsString::from));
        }
    }
    Ok(expanded)
}

fn own_option(
    option: &str,
    takes_value: &impl Fn(&str) -> Option<bool>,
) -> Result<Option<String>, String> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    let long = match name {
        EXEC => "exec".to_owned(),
        name => name.replace('_', "-"),
    };
    match (takes_value(&long), value) {
        (Some(true), Some(value)) => return Ok(Some(format!("--{long}={value}"))),
        (Some(false), None) => return Ok(Some(format!("--{long}"))),
        (Some(true), None) => return Err(format!("-o {name} needs a value: -o {name}=...")),
        (Some(false), Some(_)) => return Err(format!("-o {name} takes no value")),
        (None, _) => {}
    }
    let harmless = match value {
        None => HARMLESS.contains(&name),
        Some(_) => HARMLESS_WITH_VALUE.contains(&name),
    };
    // fstab(5): options that begin with x- are for others to read.
    if harmless || name.starts_with("x-") || name.starts_with("X-") {
        return Ok(None);
    }
    Err(format!(
        "-o {name} is not an option of s3credmount: behind -o stand its own options without the \
         dashes (see s3credmount --help), and the usual ones of mount(8)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(args: &[&str]) -> Result<String, String> {
        let own = |name: &str| match name {
            "allow-other" | "exec" => Some(false),
            "netrc" | "uid" => Some(true),
            _ => None,
        };
        let args = args.iter().map(OsString::from);
        let expanded = expand(args, own)?;
        let text = expanded.iter().map(|arg| arg.to_string_lossy());
        Ok(text.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn lists_become_options_in_their_place() {
        let args = [
            "p",
            "bucket",
            "/mnt",
            "-o",
            "ro,allow_other,uid=7,_netdev",
            "-v",
        ];
        assert_eq!(
            expanded(&args).expect("valid"),
            "p bucket /mnt --allow-other --uid=7 -v"
        );
        let args = ["p", "-onetrc=/a=b,x-systemd.automount,nofail", "bucket"];
        assert_eq!(expanded(&args).expect("valid"), "p --netrc=/a=b bucket");
        let args = ["p", "-o", "exec", "-o", "allow_exec,nodev"];
        assert_eq!(expanded(&args).expect("valid"), "p --exec --exec");
        assert_eq!(expanded(&["p", "--", "-o"]).expect("valid"), "p -- -o");
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (args, named) in [
            (&["p", "-o", "allow_root"][..], "allow_root"),
            (&["p", "-o", "uid"], "uid"),
            (&["p", "-o", "allow_other=1"], "allow_other"),
            (&["p", "-o"], "-o"),
        ] {
            let error = expanded(args).expect_err(named);
            assert!(error.contains(named), "{error}");
        }
    }
}
