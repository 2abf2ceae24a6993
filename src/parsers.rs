//! The parsers that eat foreign bytes: for each a function that says what must hold, whatever the bytes
//! are. `cargo fuzz` calls them (`fuzz/`), and so do the tests, with the seeds of the fuzzer and with
//! inputs of their own.
//!
//! What must hold stands beside the parsers, in the module `parsers` of each layer.

/// One function for each target, and a table of all.
macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident => $check:path,)*) => {
        $(
            $(#[$doc])*
            pub fn $name(bytes: &[u8]) {
                $check(&String::from_utf8_lossy(bytes));
            }
        )*

        /// All targets, by name.
        pub const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name),)*];
    };
}

targets! {
    /// The answer of `/s3credentials`, and what else Earthdata Login and the endpoint answer with.
    credentials_json => crate::earthdata::parsers::credentials_json,
    /// `expiration` of that answer.
    expiration => crate::earthdata::parsers::expiration,
    /// Error pages and tokens of Earthdata Login and of endpoints.
    login_answer => crate::earthdata::parsers::login_answer,
    /// A netrc file.
    netrc => crate::earthdata::parsers::files::netrc,
    /// A token file.
    token_file => crate::earthdata::parsers::files::token_file,
    /// `Location` of a redirect.
    redirect => crate::earthdata::parsers::redirect,
    /// `Set-Cookie`, a line each.
    cookies => crate::earthdata::parsers::cookies,
    /// URLs and hosts that the user types, or a table names.
    urls => crate::earthdata::parsers::urls,
    /// A page of CMR's collections.
    cmr => crate::earthdata::parsers::files::cmr,
    /// A file of the table of buckets.
    bucket_table => crate::earthdata::parsers::files::bucket_table,
    /// A file in which processes share credentials.
    shared_file => crate::credentials::parsers::shared_file,
    /// Pages of a listing, as [`crate::s3::pretended`] writes them down.
    list_page => crate::s3::parsers::list_page,
    /// The XML of a listing.
    list_answer => crate::s3::parsers::list_answer,
    /// The XML of an error, and the headers beside it.
    s3_error => crate::s3::parsers::s3_error,
    /// Keys and ETags of a listing, in the request for their bytes.
    get_request => crate::s3::parsers::get_request,
    /// Pages of a listing, learned.
    names => crate::namespace::parsers::names,
    /// A bucket, listed and looked up, whose server tells the truth or does not.
    listing => crate::namespace::parsers::listing,
    /// A file of keys (`--keys`).
    key_list => crate::namespace::parsers::key_list,
    /// `Host` of a request for credentials.
    host_header => crate::tools::parsers::host_header,
    /// What to mount.
    source => crate::mount::parsers::source,
    /// Options behind `-o`, an argument a line.
    dash_o => crate::cli::parsers::dash_o,
    /// The whole command line, an argument a line.
    command_line => crate::cli::parsers::command_line,
    /// Sizes, durations, modes, regions.
    values => crate::cli::parsers::values,
    /// Warnings, a line each, and the time that passes between them.
    log_fold => crate::log::parsers::log_fold,
}

/// Several times what ours are.
const LONGEST_MESSAGE: usize = 2000;

/// Fails where a message holds what a server must not put on a terminal or into a log.
pub(crate) fn check_message(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(
        text.len() <= LONGEST_MESSAGE,
        "{} bytes: {text:?}",
        text.len()
    );
}

/// Text of a format's own words and of anything else: most of what is written so is wrong, and some of it
/// nearly right.
#[cfg(test)]
pub(crate) fn soup(
    words: &'static [&'static str],
) -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;

    let word = prop_oneof![
        8 => prop::sample::select(words).prop_map(str::to_owned),
        2 => "[ -~]{0,6}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn fuzz() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
    }

    fn names_in(directory: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
        let stem = |path: PathBuf| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        };
        entries
            .map(|entry| stem(entry.expect("an entry").path()))
            .collect()
    }

    #[test]
    fn each_target_is_fuzzed_and_has_seeds() {
        let targets: BTreeSet<String> =
            TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names_in(&fuzz().join("fuzz_targets")), targets);
        assert_eq!(names_in(&fuzz().join("seeds")), targets);
    }

    #[test]
    fn what_holds_holds_for_the_seeds() {
        for (name, check) in TARGETS {
            let seeds = fuzz().join("seeds").join(name);
            let mut count = 0;
            for seed in fs::read_dir(&seeds).expect("seeds") {
                check(&fs::read(seed.expect("a seed").path()).expect("a file"));
                count += 1;
            }
            assert!(count > 0, "{name} has no seed");
        }
    }
}
