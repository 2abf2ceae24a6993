//! Kinds of files: what names have at their end, behind what tells one granule from the other.
//!
//! A granule often is a file for each band or variable (`….B04.tif`, `….Fmask.tif`), and a job reads the same few of
//! each. Once it has read them of two granules, it is known which; and which it leaves out.

use std::num::NonZeroUsize;

use lru::LruCache;

/// Kinds that are remembered of a run, those it met last.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
/// So many files of a kind are what is remembered of how they were read.
const LATELY: u32 = 8;
/// So many of a kind are evidence.
const EVIDENCE: u32 = 2;
/// A kind that was read once only, so many reads ago, is none that is read of each granule.
const ONCE: u64 = 16;
/// Longer numbers than this are a date or a serial number, and tell no kind.
const LONGEST_NUMBER: usize = 3;

/// The kinds of files that a run has met.
#[derive(Clone, Debug)]
pub(super) struct Kinds {
    met: LruCache<String, Met>,
    /// Files read so far.
    reads: u64,
}

/// Files of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    read: u32,
    /// Those that were left out.
    passed: u32,
    /// The number of the latest read.
    at: u64,
}

impl Default for Kinds {
    fn default() -> Self {
        Self {
            met: LruCache::new(REMEMBERED),
            reads: 0,
        }
    }
}

impl Kinds {
    /// Notes that the file `key` is left out, for now.
    pub(super) fn pass(&mut self, key: &str) {
        self.meet(key, |met| met.passed += 1);
    }

    /// Notes that the file `key` is read, which had been passed before if it is `late`.
    pub(super) fn read(&mut self, key: &str, late: bool) {
        self.reads += 1;
        let reads = self.reads;
        self.meet(key, |met| {
            met.passed = met.passed.saturating_sub(u32::from(late));
            met.read += 1;
            met.at = reads;
        });
    }

    fn meet(&mut self, key: &str, note: impl FnOnce(&mut Met)) {
        let met = self.met.get_or_insert_mut_ref(kind(key), Met::default);
        note(met);
        if met.read + met.passed > LATELY {
            (met.read, met.passed) = (met.read / 2, met.passed / 2);
        }
    }

    /// Whether files like `key` are left out.
    pub(super) fn shun(&self, key: &str) -> bool {
        let met = self.met.peek(kind(key));
        met.is_some_and(|met| met.read == 0 && met.passed >= EVIDENCE)
    }

    /// Whether files like `key` are read, most of them.
    pub(super) fn want(&self, key: &str) -> bool {
        self.met.peek(kind(key)).is_some_and(Met::is_wanted)
    }

    /// Whether it is known which of the files that follow are read.
    pub(super) fn are_known(&self) -> bool {
        let is_open = |met: &Met| {
            met.read > 0 && met.read < EVIDENCE && met.passed == 0 && self.reads < met.at + ONCE
        };
        !self.met.iter().any(|(_, met)| is_open(met))
    }
}

impl Met {
    fn is_wanted(&self) -> bool {
        self.read >= EVIDENCE && self.read >= 2 * self.passed
    }
}

/// What the names of one granule begin with.
pub(super) fn granule(key: &str) -> &str {
    &key[..key.len() - kind(key).len()]
}

/// The last part of a name and its ending, or the ending alone; of a chunk of a Zarr array, which has none, where it
/// lies along the last two axes.
fn kind(key: &str) -> &str {
    let (above, name) = key.rsplit_once('/').unwrap_or(("", key));
    let start = key.len() - name.len();
    let Some(ending) = name.rfind('.') else {
        let last = above.rsplit('/').next().unwrap_or_default();
        return match (is_number(last), is_number(name)) {
            (true, true) => &key[start - 1 - last.len()..],
            _ => "",
        };
    };
    let part = name[..ending].rfind(['.', '_', '-']).map_or(0, |at| at + 1);
    let last = &name[part..ending];
    let is_date = last.len() > LONGEST_NUMBER && is_digits(last);
    &name[if is_date { ending } else { part }..]
}

fn is_number(part: &str) -> bool {
    (1..=LONGEST_NUMBER).contains(&part.len()) && is_digits(part)
}

fn is_digits(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_the_last_part_of_a_name() {
        for (key, is) in [
            ("HLS/HLS.L30.T55GEM.2021123T001234.v2.0.B04.tif", "B04.tif"),
            ("OPERA_L2_RTC-S1_T064-135518-IW2_30_v1.0_VH.tif", "VH.tif"),
            ("2024/001/hour_06.nc4", "06.nc4"),
            ("MERRA2_400.tavg1_2d_slv_Nx.20200101.nc4", ".nc4"),
            ("MOD09.A2021001.h08v05.061.2021012345678.hdf.xml", "hdf.xml"),
            ("array/c/17/0/1", "0/1"),
            ("array/c/17", ""),
            ("2.zarr/v0/17.0.1", "0.1"),
            ("a_b.c/plain", ""),
            (".tif", ".tif"),
        ] {
            assert_eq!(kind(key), is, "{key}");
        }
    }

    /// Reads files of these kinds of `granules`, of which each has five.
    fn read(kinds: &mut Kinds, granules: std::ops::Range<u64>, some: &[u64]) {
        for granule in granules {
            for band in 0..5 {
                let key = format!("{granule}/{granule}.B{band}.tif");
                match some.contains(&band) {
                    true => kinds.read(&key, false),
                    false => kinds.pass(&key),
                }
            }
        }
    }

    /// Which of the five are wanted, and which are shunned.
    fn learnt(kinds: &Kinds) -> [Vec<u64>; 2] {
        let of = |is: &dyn Fn(&str) -> bool| {
            let bands = 0..5;
            bands
                .filter(|band| is(&format!("9/9.B{band}.tif")))
                .collect()
        };
        [of(&|key| kinds.want(key)), of(&|key| kinds.shun(key))]
    }

    #[test]
    fn what_is_read_of_two_granules_is_read_of_all() {
        let mut kinds = Kinds::default();
        read(&mut kinds, 0..1, &[1, 3]);
        assert_eq!(learnt(&kinds), [Vec::new(), Vec::<u64>::new()]);
        assert!(!kinds.are_known());
        read(&mut kinds, 1..2, &[1, 3]);
        assert_eq!(learnt(&kinds), [vec![1, 3], vec![0, 2, 4]]);
        assert!(kinds.are_known());
    }

    #[test]
    fn who_reads_others_later_is_believed() {
        let mut kinds = Kinds::default();
        read(&mut kinds, 0..100, &[1, 3]);
        read(&mut kinds, 100..110, &[0, 1]);
        assert_eq!(learnt(&kinds), [vec![0, 1], vec![2, 4]]);
    }

    #[test]
    fn one_look_at_another_file_is_no_kind() {
        let mut kinds = Kinds::default();
        read(&mut kinds, 0..1, &[1]);
        kinds.read("0/README.txt", false);
        read(&mut kinds, 1..3, &[1]);
        assert!(!kinds.are_known(), "it may be one of each directory");
        read(&mut kinds, 3..20, &[1]);
        assert!(kinds.are_known());
        assert!(!kinds.want("20/README.txt"));
    }

    #[test]
    fn who_comes_back_for_it_has_not_left_it_out() {
        let mut kinds = Kinds::default();
        for granule in 0..8 {
            kinds.pass(&format!("{granule}.B1.tif"));
            kinds.read(&format!("{granule}.B2.tif"), false);
            kinds.read(&format!("{granule}.B1.tif"), true);
        }
        assert_eq!(learnt(&kinds)[0], [1, 2]);
    }
}
