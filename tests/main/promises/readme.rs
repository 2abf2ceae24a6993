//! The table of options.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;
use crate::support::bare_program;

/// The long options of `--help`, each with its whole text.
fn options_of_help() -> Vec<(String, String)> {
    let mut program = bare_program();
    program.env_remove("S3CREDMOUNT_CREDENTIALS_CACHE");
    let output = program.arg("--help").output().expect("it runs");
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let mut options: Vec<(String, String)> = Vec::new();
    let mut within = false;
    for line in help.lines() {
        let text = line.trim_start();
        let begins = line.starts_with("  ") && text.starts_with('-');
        if begins {
            let long = text.split_whitespace().find(|word| word.starts_with("--"));
            let long = long.expect("each option has a long name");
            let long = long.trim_end_matches("...").trim_end_matches(',');
            options.push((long.to_owned(), String::new()));
        }
        within = begins || (within && line.starts_with("      "));
        if within && let Some((_, all)) = options.last_mut() {
            all.push_str(text);
            all.push(' ');
        }
    }
    let programs_own = |(long, _): &(String, String)| long == "--help" || long == "--version";
    options.retain(|option| !programs_own(option));
    options.into_iter().map(|(l, t)| (l, folded(&t))).collect()
}

/// What stands behind `[label` in a text, up to the bracket.
fn bracketed<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("[{label}"))?;
    Some(rest.split_once(']')?.0.trim())
}

#[test]
fn readme_tells_every_option_as_the_program_does() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.expect("README.md");
    let rows: Vec<Vec<&str>> = readme
        .lines()
        .filter(|line| line.starts_with("| `-"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let options = options_of_help();
    assert!(
        options.len() >= 18,
        "only {} found: {options:?}",
        options.len()
    );
    assert_eq!(rows.len(), options.len(), "a row for each option");
    for (option, help) in options {
        let row = rows.iter().find(|row| {
            let mut words = row[0].split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            words.any(|word| word == option)
        });
        let row = row.unwrap_or_else(|| panic!("README lacks {option}"));
        let [_, default, variable, meaning] = row[..] else {
            panic!("{option}: not four columns: {row:?}");
        };
        if let Some(expected) = bracketed(&help, "default: ") {
            assert_eq!(default, expected, "the default of {option}");
        } else {
            assert!(
                ["off", "0", "AWS"].contains(&default),
                "{option}: {default}"
            );
        }
        let expected = bracketed(&help, "env: ").expect("each option has a variable");
        let expected = expected.trim_end_matches('=');
        assert_eq!(
            variable.trim_matches('`'),
            expected,
            "the variable of {option}"
        );
        assert!(
            help.contains(meaning),
            "{option}: {meaning:?} is not in {help:?}"
        );
    }
}

/// docs/reliability.md says what holds for whatever is fuzzed.
#[test]
fn every_fuzz_target_is_in_the_documents() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/reliability.md")).expect("the document");
    let told: BTreeSet<&str> = document
        .lines()
        .filter(|line| line.contains("::parsers::"))
        .filter_map(|row| row.rsplit('|').nth(1))
        .flat_map(|targets| targets.split('`').skip(1).step_by(2))
        .collect();
    let files = fs::read_dir(root.join("fuzz/fuzz_targets")).expect("a directory");
    let names = files.map(|file| file.expect("a file").path().with_extension(""));
    let names: Vec<_> = names.collect();
    let names = names.iter().map(|path| path.file_name()?.to_str());
    assert_eq!(told, names.map(|name| name.expect("UTF-8")).collect());
}
