//! A day in the life of a mount, compressed: hours become seconds, and one minute holds all that an
//! endpoint can do to it. `scripts/soak credentials` is the long version.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mock_earthdata::{Answer, Content, Host, World};

use crate::support::{BUCKET, Mount, PATIENCE, computed, program, world_with};

const LIFETIME: Duration = Duration::from_secs(6);
/// `--credential-wait`.
const WAIT: Duration = Duration::from_secs(4);
const READERS: u64 = 8;
const SIZE: u64 = 1 << 42;
/// What a read may take beyond its wait, on a machine that does other things as well.
const SLACK: Duration = Duration::from_secs(8);

/// A read that is over.
struct Done {
    begin: Instant,
    end: Instant,
    errno: Option<i32>,
}

/// Reads where nobody has read before, until told to stop: each read needs S3 and its credentials.
fn read_until(over: &AtomicBool, file: &File, reader: u64, done: &Mutex<Vec<Done>>) {
    const STRIDE: u64 = 7_919_000_003;
    let part = SIZE / READERS;
    let mut step = 0;
    while !over.load(Ordering::Relaxed) {
        step += 1;
        let offset = reader * part + step * STRIDE % (part - 1000);
        let mut bytes = [0; 1000];
        let begin = Instant::now();
        let result = file.read_exact_at(&mut bytes, offset);
        if result.is_ok() {
            assert!(bytes[..] == computed("file", offset, 1000), "{offset}");
        }
        done.lock().expect("no panic").push(Done {
            begin,
            end: Instant::now(),
            errno: result.err().and_then(|error| error.raw_os_error()),
        });
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A third of the time down, in windows shorter than what is left of a life at its renewal; and when it
/// is not, each second request fails.
fn short_outages(world: &World, seconds: u64) {
    world.set_fail_every(Some(2));
    let begin = Instant::now();
    let down = [
        Answer::Status(503, "disabled".to_owned()),
        Answer::Status(500, "Something broke!".to_owned()),
        Answer::Html,
        Answer::Normal,
    ];
    for answer in down.iter().cycle() {
        if begin.elapsed() > Duration::from_secs(seconds) {
            break;
        }
        // The last of them: nobody is at home.
        world.refuse_connections_of(Host::Tea, *answer == Answer::Normal);
        world.set_answer(answer.clone());
        std::thread::sleep(Duration::from_millis(600));
        world.refuse_connections_of(Host::Tea, false);
        world.set_answer(Answer::Normal);
        std::thread::sleep(Duration::from_millis(1200));
    }
    world.set_fail_every(None);
}

/// Issue 4: credentials of 6 s, 8 readers, an endpoint that is down a third of the time, a clock that
/// jumps, and one outage that outlasts the credentials. No read fails but in that one.
#[test]
fn a_day_in_the_life() {
    let object = [("file", Content::Synthetic { size: SIZE })];
    let world = world_with(object, |settings| settings.lifetime = LIFETIME);
    let mut command = program(&world);
    command.args(["--credential-wait", &WAIT.as_secs().to_string()]);
    let mount = Mount::with(command, BUCKET);
    let over = AtomicBool::new(false);
    let done: Vec<Mutex<Vec<Done>>> = (0..READERS).map(|_| Mutex::default()).collect();
    let (mut down, mut up) = (Instant::now(), Instant::now());
    std::thread::scope(|scope| {
        for (reader, done) in (0..).zip(&done) {
            let file = File::open(mount.path("file")).expect("open");
            let over = &over;
            scope.spawn(move || read_until(over, &file, reader, done));
        }
        short_outages(&world, 20);
        world.set_clock_offset(7200);
        std::thread::sleep(LIFETIME);
        short_outages(&world, 5);
        // The long one. It ends when every reader has been told so.
        let issued = world.counters().credentials_issued;
        world.set_answer(Answer::Status(503, "disabled".to_owned()));
        down = Instant::now();
        let has_failed = |done: &Mutex<Vec<Done>>| {
            let done = done.lock().expect("no panic");
            done.iter().any(|read| read.errno.is_some())
        };
        while !done.iter().all(has_failed) && down.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        world.set_answer(Answer::Normal);
        up = Instant::now();
        while world.counters().credentials_issued == issued && up.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(LIFETIME);
        over.store(true, Ordering::Relaxed);
    });
    for (reader, done) in done.iter().enumerate() {
        let done = done.lock().expect("no panic");
        let failed: Vec<_> = done.iter().filter(|read| read.errno.is_some()).collect();
        assert!(!failed.is_empty(), "reader {reader} noticed nothing");
        for read in failed {
            assert_eq!(read.errno, Some(libc::EKEYEXPIRED), "{}", mount.log());
            // Credentials that were good when the outage began serve until they end.
            assert!(
                read.end > down && read.begin < up + SLACK,
                "{}",
                mount.log()
            );
            let took = read.end - read.begin;
            assert!(took >= WAIT && took < WAIT + SLACK, "{took:?}");
        }
        let mut healed = done
            .iter()
            .filter(|read| read.errno.is_none() && read.end > up);
        let healed = healed.next().expect("heals").end - up;
        // 5 s on a machine that has nothing else to do: `scripts/soak` looks at that.
        assert!(healed < Duration::from_secs(5) + SLACK, "{healed:?}");
    }
    let counters = world.counters();
    assert_eq!(
        counters.expired_signed, 0,
        "signed with expired credentials"
    );
    // The clock's jump is the only other thing that S3 has complained of: 403 RequestTimeTooSkewed.
    let complaints = counters.errors.iter().filter(|(status, _)| **status != 403);
    let complaints: u64 = complaints.map(|(_, count)| count).sum();
    assert_eq!(
        complaints, counters.expired_refused,
        "{:?}",
        counters.errors
    );
    mount.log_with(" s behind that of the credentials endpoint");
    assert!(counters.credentials_requests > counters.credentials_issued + 3);
}
