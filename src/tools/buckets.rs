//! `s3credmount buckets`: the table of buckets, and its renewal from CMR.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use reqwest::Url;

use super::cannot_print;
use crate::earthdata::{self, BucketRow, Sweep, Table};
use crate::network::Network;

/// What to list.
#[derive(Debug)]
pub struct Config {
    /// A part of a row; `*` stands for anything.
    pub pattern: String,
    /// What is known so far.
    pub table: Table,
    /// Whether to ask CMR first, and how.
    pub refresh: Option<Refresh>,
}

/// A sweep of CMR.
#[derive(Debug)]
pub struct Refresh {
    /// Where CMR is.
    pub cmr: Url,
    /// Certificates and the like.
    pub network: Network,
    /// Where to keep the new table.
    pub file: PathBuf,
}

/// Lists the rows that fit, one to a line: in columns for people, separated by tabs for programs.
///
/// # Errors
/// A message for the user; also where no row fits.
pub async fn run(config: &Config) -> Result<(), String> {
    let table = match &config.refresh {
        None => config.table.clone(),
        // A bucket that CMR has forgotten may still be there.
        Some(refresh) => swept(refresh).await?.or(Table::built_in()),
    };
    let fitting: Vec<_> = table.rows().iter().map(columns).collect();
    let fitting: Vec<_> = fitting
        .into_iter()
        .filter(|row| fits(&config.pattern, &row.join("\t")))
        .collect();
    if fitting.is_empty() {
        return Err(format!(
            "no bucket fits {:?}: all that are known are listed by s3credmount buckets, and new \
             ones are found by s3credmount buckets --refresh",
            config.pattern
        ));
    }
    let mut out = io::stdout().lock();
    let text = match out.is_terminal() {
        true => aligned(&fitting),
        false => fitting.iter().map(|row| row.join("\t") + "\n").collect(),
    };
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(cannot_print)
}

async fn swept(refresh: &Refresh) -> Result<Table, String> {
    let progress = |collections, of| {
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r{collections} of {of} collections");
        }
    };
    let swept = earthdata::sweep(&refresh.cmr, &refresh.network, progress).await;
    if io::stderr().is_terminal() {
        let _ = writeln!(io::stderr());
    }
    let Sweep {
        table,
        collections,
        left_out,
    } = swept.map_err(|error| error.to_string())?;
    let path = refresh.file.display();
    table
        .write(&refresh.file)
        .map_err(|error| format!("cannot write the table of buckets to {path}: {error}"))?;
    let buckets = table.rows().len();
    let _ = writeln!(
        io::stderr(),
        "s3credmount: {collections} collections name {buckets} buckets, now in {path}; {left_out} \
         entries were left out, because bucket, endpoint or region cannot be used"
    );
    Ok(table)
}

fn columns(row: &BucketRow) -> [&str; 4] {
    [row.bucket(), row.archive(), row.region(), row.endpoint()]
}

fn aligned(rows: &[[&str; 4]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let [bucket, archive, region, _] = [0, 1, 2, 3].map(width);
    let line = |[a, b, c, d]: &[&str; 4]| format!("{a:bucket$}  {b:archive$}  {c:region$}  {d}\n");
    rows.iter().map(line).collect()
}

/// Whether the parts of `pattern` between its `*` are in `text`, one behind the other, in either case
/// of letters.
fn fits(pattern: &str, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    let rest = pattern.split('*').try_fold(text.as_str(), |rest, part| {
        rest.find(part).map(|at| &rest[at + part.len()..])
    });
    rest.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let row = "podaac-ops-cumulus-protected\tPO.DAAC\tus-west-2\thttps://x/s3credentials";
        for pattern in ["", "podaac", "*protected", "po*ops*pro", "PO.daac", "west"] {
            assert!(fits(pattern, row), "{pattern}");
        }
        for pattern in ["nsidc", "protected*podaac", "**z"] {
            assert!(!fits(pattern, row), "{pattern}");
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "PO.DAAC", "r", "e"], ["long", "X", "r", "f"]];
        assert_eq!(aligned(&rows), "a     PO.DAAC  r  e\nlong  X        r  f\n");
    }
}
