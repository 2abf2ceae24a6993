//! Bytes: whole files, ranges, offsets past 4 GiB, mmap, many readers, one stream.

use std::fs::File;
use std::os::unix::fs::FileExt;

use mock_earthdata::Content;

use crate::support::{Mount, computed, world};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn synthetic(size: u64) -> Content {
    Content::Synthetic { size }
}

fn read_at(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        let n = file
            .read_at(&mut bytes[done..], offset + done as u64)
            .expect("a read");
        if n == 0 {
            break;
        }
        done += n;
    }
    bytes.truncate(done);
    bytes
}

#[test]
fn whole_files_of_every_awkward_size() {
    let sizes = [
        0,
        1,
        4095,
        65_536,
        65_537,
        MIB - 1,
        MIB,
        MIB + 1,
        5 * MIB + 3,
    ];
    let world = world(sizes.map(|size| (format!("dir/{size}"), synthetic(size))));
    let mount = Mount::new(&world);
    for size in sizes {
        let key = format!("dir/{size}");
        let len = usize::try_from(size).expect("small");
        assert!(mount.read(&key) == computed(&key, 0, len), "{key}");
        let length = std::fs::metadata(mount.path(&key)).expect("stat").len();
        assert_eq!(length, size);
    }
}

#[test]
fn ranges_at_any_offset_and_past_4_gib() {
    let world = world([("big", synthetic(6 * GIB + 7))]);
    let mount = Mount::new(&world);
    let file = File::open(mount.path("big")).expect("open");
    for (offset, len) in [
        (0, 1),
        (1, 4096),
        (MIB - 1, 2),
        (3 * MIB - 100_000, 2_500_000),
        (5 * GIB - 3, 7),
        (5 * GIB + 12_345, 300_000),
        (6 * GIB, 7),
    ] {
        let read = read_at(&file, offset, len);
        assert!(read == computed("big", offset, len), "{offset} {len}");
    }
    assert_eq!(
        read_at(&file, 6 * GIB + 5, 100),
        computed("big", 6 * GIB + 5, 2)
    );
    assert!(read_at(&file, 6 * GIB + 7, 100).is_empty());
    assert!(read_at(&file, 60 * GIB, 100).is_empty());
}

#[test]
fn sixty_four_readers_at_once_get_their_own_bytes() {
    let world = world([("one", synthetic(256 * MIB)), ("two", synthetic(MIB + 5))]);
    let mount = Mount::new(&world);
    std::thread::scope(|scope| {
        for reader in 0..64_u64 {
            let mount = &mount;
            scope.spawn(move || {
                let key = if reader % 8 == 0 { "two" } else { "one" };
                let file = File::open(mount.path(key)).expect("open");
                let size = file.metadata().expect("stat").len();
                for step in 0..20_u64 {
                    let offset = (reader * 7919 + step * 104_729) * 4099 % size;
                    let read = read_at(&file, offset, 70_000);
                    let len = 70_000.min(usize::try_from(size - offset).expect("small"));
                    assert!(read == computed(key, offset, len), "{key} {offset}");
                }
            });
        }
    });
}

#[test]
fn many_readers_of_one_object_fetch_it_once() {
    let world = world([("shared", synthetic(64 * MIB))]);
    let mount = Mount::new(&world);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let read = mount.read("shared");
                assert!(read == computed("shared", 0, read.len()) && read.len() as u64 == 64 * MIB);
            });
        }
    });
    let fetched = world.counters().body_bytes;
    assert!(fetched <= 64 * MIB * 105 / 100, "fetched {fetched}");
}

/// Issue 2: at most size / 4 MiB GETs, and at most 1.1 bytes fetched per byte read.
#[test]
fn a_stream_of_a_gibibyte_sends_few_gets_and_fetches_little_more_than_it_reads() {
    let world = world([("stream", synthetic(GIB))]);
    let mount = Mount::with_args(&world, &["--memory-limit", "512MiB"]);
    let file = File::open(mount.path("stream")).expect("open");
    let mut expected = vec![0; 1 << 20];
    for offset in (0..GIB).step_by(1 << 20) {
        let read = read_at(&file, offset, 1 << 20);
        mock_earthdata::fill("stream", offset, &mut expected);
        assert!(read == expected, "at {offset}");
    }
    drop(file);
    let counters = world.counters();
    assert!(counters.get <= GIB / (4 * MIB), "{} GETs", counters.get);
    let fetched = counters.body_bytes;
    assert!(fetched <= GIB * 11 / 10, "fetched {fetched}");
    assert_eq!(counters.forbidden_operations, 0);
    // The limit, and 100 MiB for all else.
    let peak = mount.peak_rss();
    assert!(peak <= (512 + 100) * MIB, "{} MiB", peak / MIB);
}

#[test]
fn a_random_read_fetches_a_sector_and_not_a_window() {
    let world = world([("random", synthetic(GIB))]);
    let mount = Mount::new(&world);
    let file = File::open(mount.path("random")).expect("open");
    let reads = 50;
    for step in 1..=reads {
        let offset = step * 7919 * 4096 * 5 % GIB;
        read_at(&file, offset, 4096);
    }
    let fetched = world.counters().body_bytes;
    let most = reads * 4 * (128 << 10);
    assert!(fetched <= most, "{fetched} bytes for {reads} reads");
}

#[test]
fn mmap_reads_the_same_bytes() {
    let world = world([("mapped", synthetic(3 * MIB + 10))]);
    let mount = Mount::new(&world);
    let file = File::open(mount.path("mapped")).expect("open");
    let len = usize::try_from(3 * MIB + 10).expect("small");
    // SAFETY: a private read-only mapping of an open file, unmapped below.
    let at = unsafe {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            fd,
            0,
        )
    };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: the mapping is `len` long, and the file does not shrink.
    let mapped = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), len) };
    assert!(mapped == computed("mapped", 0, len));
    // SAFETY: mapped above; `mapped` is not used any more.
    unsafe { libc::munmap(at, len) };
}

#[test]
fn a_replaced_object_is_stale_to_its_reader_and_new_to_the_next() {
    let world = world([("file", vec![b'a'; 20 << 20])]);
    let mount = Mount::new(&world);
    let old = File::open(mount.path("file")).expect("open");
    assert_eq!(read_at(&old, 0, 3), b"aaa");
    world.put(crate::support::BUCKET, "file", vec![b'b'; 10 << 20]);
    let error = old.read_at(&mut [0; 10], 15 << 20).expect_err("replaced");
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    let begin = std::time::Instant::now();
    // The kernel is told from another thread: that may take a moment.
    let new = vec![b'b'; 10 << 20];
    while std::fs::read(mount.path("file")).ok().as_ref() != Some(&new) {
        assert!(begin.elapsed() < crate::support::PATIENCE, "never seen");
    }
}
