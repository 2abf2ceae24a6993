//! How much memory there is for this process: the machine's, or less where a cgroup says so, as
//! batch systems and containers do.

use std::fs;
use std::path::{Path, PathBuf};

use nix::libc::RLIM_INFINITY;
use nix::sys::resource::{Resource, getrlimit};

const MIB: u64 = 1 << 20;
/// The default when there is plenty.
const PLENTY: u64 = 512 * MIB;

/// What the process needs of addresses besides the memory for data: stacks, and the heaps of its threads.
const ELSE: u64 = 1024 * MIB;
/// Not worth mounting with less.
const LEAST: u64 = 64 * MIB;

/// How many bytes of addresses blocks of data may have, of which `limit` bytes are in use at most.
pub(crate) fn addresses(limit: u64) -> u64 {
    let overcommit = fs::read_to_string("/proc/sys/vm/overcommit_memory");
    let is_strict = overcommit.is_ok_and(|policy| policy.trim() == "2");
    addresses_of(limit, soft_limit(), is_strict)
}

/// The same. `is_strict`: the kernel gives all programs together no more addresses than there is memory
/// (proc_sys_vm(5)), and the others need theirs.
fn addresses_of(limit: u64, soft_limit: u64, is_strict: bool) -> u64 {
    let most = soft_limit.saturating_sub(ELSE);
    // Not all blocks that are mapped are in use.
    if is_strict {
        most.min(limit / 2 * 3)
    } else {
        most
    }
}

fn soft_limit() -> u64 {
    let soft = |of| getrlimit(of).map_or(RLIM_INFINITY, |(soft, _)| soft);
    soft(Resource::RLIMIT_AS).min(soft(Resource::RLIMIT_DATA))
}

/// What `--memory-limit` is where the user asks for `asked`: what fits into the addresses that the process may
/// have (RLIMIT_AS, RLIMIT_DATA). Where those end, so does the mount.
///
/// # Errors
/// If they are too few.
pub(crate) fn limit(asked: Option<u64>) -> Result<u64, String> {
    within(asked, default_limit(), soft_limit())
}

fn within(asked: Option<u64>, default: u64, addresses: u64) -> Result<u64, String> {
    // Not all blocks that are mapped are in use.
    let most = addresses.saturating_sub(ELSE) / 3 * 2;
    if most >= asked.unwrap_or(LEAST.min(default)) {
        return Ok(asked.unwrap_or(default.min(most)));
    }
    let least = asked.unwrap_or(LEAST) / 2 * 3 + ELSE;
    Err(format!(
        "this process may have {} MiB of addresses, and needs {} MiB: raise the limit (ulimit -v, ulimit -d; \
         h_vmem of a batch system){}",
        addresses / MIB,
        least / MIB,
        if asked.is_some() {
            ", or lower --memory-limit"
        } else {
            ""
        },
    ))
}

/// The default of `--memory-limit`: the smaller of 512 MiB and an eighth of the memory there is.
fn default_limit() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&cgroups, Path::new("/sys/fs/cgroup"))
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    default_of(machine.as_deref(), limits)
}

/// The same, by /proc/meminfo and what stands in files of limits, which may be `max`.
fn default_of(meminfo: Option<&str>, limits: impl IntoIterator<Item = String>) -> u64 {
    let limits = limits.into_iter();
    let limits = limits.filter_map(|text| text.trim().parse().ok());
    let least = limits.chain(meminfo.and_then(total)).min();
    PLENTY.min(least.unwrap_or(8 * PLENTY) / 8)
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The files that may hold a limit for the cgroups of /proc/self/cgroup (cgroups(7)): those of the
/// cgroup itself and of all above it, version 2 and 1.
fn limit_files(cgroups: &str, mounted_at: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (top, file) = if controllers.is_empty() {
            (mounted_at.to_owned(), "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            (mounted_at.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let below = top.join(path.trim_start_matches('/'));
        let chain = below.ancestors().take_while(|dir| dir.starts_with(&top));
        files.extend(chain.map(|dir| dir.join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_as_memory_where_the_kernel_is_strict() {
        assert_eq!(
            addresses_of(PLENTY, RLIM_INFINITY, false),
            RLIM_INFINITY - ELSE
        );
        assert_eq!(addresses_of(PLENTY, RLIM_INFINITY, true), 768 * MIB);
        assert_eq!(addresses_of(PLENTY, 1300 * MIB, true), 276 * MIB);
    }

    #[test]
    fn the_limit_fits_into_the_addresses_there_are() {
        assert_eq!(within(None, PLENTY, RLIM_INFINITY), Ok(PLENTY));
        assert_eq!(within(None, PLENTY, 1300 * MIB), Ok(184 * MIB));
        assert_eq!(within(None, 30 * MIB, 1300 * MIB), Ok(30 * MIB));
        assert_eq!(within(Some(100 * MIB), PLENTY, 1300 * MIB), Ok(100 * MIB));
        let few = within(None, PLENTY, 1100 * MIB).expect_err("few");
        assert!(
            few.contains("1100 MiB") && few.contains("needs 1120 MiB"),
            "{few}"
        );
        let few = within(Some(PLENTY), PLENTY, 1300 * MIB).expect_err("few");
        assert!(few.contains("--memory-limit"), "{few}");
    }

    #[test]
    fn meminfo_is_in_kib() {
        let text = "MemTotal:       24576000 kB\nMemFree:  1 kB\n";
        assert_eq!(total(text), Some(24_576_000 * 1024));
        assert_eq!(total("nothing"), None);
    }

    #[test]
    fn every_cgroup_up_to_the_top_may_limit() {
        let at = Path::new("/cg");
        let files = |text| limit_files(text, at);
        assert_eq!(
            files("0::/job/step\n"),
            [
                "/cg/job/step/memory.max",
                "/cg/job/memory.max",
                "/cg/memory.max"
            ]
            .map(PathBuf::from)
        );
        assert_eq!(
            files("7:cpu:/x\n9:memory:/slurm\n"),
            [
                "/cg/memory/slurm/memory.limit_in_bytes",
                "/cg/memory/memory.limit_in_bytes"
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn the_default_is_at_most_512_mib() {
        let of = |kib: u64, limits: &[&str]| {
            let limits = limits.iter().map(|limit| (*limit).to_owned());
            default_of(Some(&format!("MemTotal: {kib} kB\n")), limits)
        };
        assert_eq!(of(24 << 20, &["max\n"]), PLENTY);
        assert_eq!(of(2 << 20, &[]), 256 * MIB);
        assert_eq!(
            of(24 << 20, &["max\n", "1073741824\n", "2147483648\n"]),
            128 * MIB
        );
        assert_eq!(of(1 << 20, &["9223372036854771712\n"]), 128 * MIB);
        assert_eq!(default_of(None, []), PLENTY);
    }
}
