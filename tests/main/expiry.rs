//! Credentials that really expire, in seconds instead of an hour.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use mock_earthdata::{Answer, Content, Fault, FaultRule, Op, World};

use crate::support::{Mount, PATIENCE, computed, program, world, world_with};

/// Issue 2: credentials of 5 s, 60 s of reads in sequence and at random, an endpoint that fails every
/// second request; no read fails, and no request is sent with credentials known to be expired.
#[test]
fn reads_go_on_for_a_minute_over_credentials_of_5_s_from_an_endpoint_that_fails_every_second_time()
{
    const SIZE: u64 = 40 << 30;
    const LIFETIME: u64 = 5;
    const DURATION: Duration = Duration::from_secs(60);
    let object = [("object", Content::Synthetic { size: SIZE })];
    let world = world_with(object, |settings| {
        settings.lifetime = Duration::from_secs(LIFETIME);
        settings.fail_every = Some(2);
    });
    let mount = Mount::new(&world);
    let file = File::open(mount.path("object")).expect("open");
    let begin = Instant::now();
    let check = |offset: u64| {
        let mut bytes = vec![0; 100_000];
        file.read_exact_at(&mut bytes, offset)
            .expect("no read fails");
        assert!(bytes == computed("object", offset, bytes.len()), "{offset}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut offset = 0;
            while begin.elapsed() < DURATION {
                check(offset % (SIZE / 2));
                offset += 100_000;
            }
        });
        scope.spawn(|| {
            let mut step = 0;
            while begin.elapsed() < DURATION {
                step += 1;
                check(SIZE / 2 + step * 7_919_000_003 % (SIZE / 2 - 100_000));
            }
        });
    });
    let counters = world.counters();
    assert_eq!(
        counters.expired_signed, 0,
        "signed with expired credentials"
    );
    assert_eq!(
        counters.errors.values().sum::<u64>(),
        counters.expired_refused,
        "{:?}",
        counters.errors
    );
    // A refresh each 65 to 75 % of the 4 to 5 s that are left when credentials arrive; one failure
    // before each.
    let (fewest, most) = (60 / LIFETIME, 60 * 2 / LIFETIME);
    let issued = counters.credentials_issued;
    assert!((fewest..=most).contains(&issued), "{issued} issued");
    let requests = counters.credentials_requests;
    assert!(requests <= 2 * most + 2, "{requests} requests");
}

#[test]
fn one_refresh_and_a_replay_when_s3_says_expired_before_its_time() {
    let world = world([("file", Content::Synthetic { size: 300 << 20 })]);
    let mount = Mount::new(&world);
    assert_eq!(mount.names(""), ["file"]);
    world.reset_counters();
    world.expire_all();
    std::thread::scope(|scope| {
        for reader in 0..16_u64 {
            let mount = &mount;
            scope.spawn(move || {
                let file = File::open(mount.path("file")).expect("open");
                let mut bytes = vec![0; 1000];
                let offset = (1 + reader) * (16 << 20);
                file.read_exact_at(&mut bytes, offset).expect("a read");
                assert!(bytes == computed("file", offset, 1000));
            });
        }
    });
    let counters = world.counters();
    assert!(counters.expired_refused >= 1);
    assert_eq!(counters.credentials_issued, 1);
}

/// Two more ways of S3 to say that it does not know the credentials (any more).
#[test]
fn one_refresh_and_a_replay_when_s3_does_not_know_the_key_or_the_token() {
    for (spoil, code) in [
        (World::forget_all as fn(&World), "InvalidAccessKeyId"),
        (World::garble_tokens, "InvalidToken"),
    ] {
        let world = world([("file", "content"), ("other", "more")]);
        let mount = Mount::new(&world);
        assert_eq!(mount.read("file"), b"content");
        world.reset_counters();
        spoil(&world);
        assert_eq!(mount.read("other"), b"more");
        let counters = world.counters();
        assert_eq!(counters.credentials_issued, 1, "{code}");
        assert!(counters.errors.values().sum::<u64>() >= 1, "{code}");
    }
}

/// A bucket that may not be listed: names are asked for by HEAD, which says no more than 400.
fn unlisted_world() -> World {
    let world = world([("file", "x"), ("other", "y")]);
    let access = mock_earthdata::Access {
        list: mock_earthdata::ListAccess::Nowhere,
        get: true,
    };
    world.set_bucket_access(crate::support::BUCKET, access);
    world
}

#[test]
fn a_head_400_of_expired_credentials_is_seen_through() {
    let world = unlisted_world();
    let mount = Mount::new(&world);
    assert_eq!(mount.read("other"), b"y");
    world.reset_counters();
    world.expire_all();
    assert_eq!(mount.read("file"), b"x");
    assert_eq!(world.counters().credentials_issued, 1);
}

/// Nor does one file that S3 answers in such a way to take the credentials from all others.
#[test]
fn a_head_400_for_another_reason_leaves_the_credentials_alone() {
    let world = unlisted_world();
    let rule = FaultRule::on([Op::Head, Op::Get]).key("odd");
    world.script(rule.fault(Fault::InvalidRequest));
    let mount = Mount::new(&world);
    assert_eq!(mount.read("other"), b"y");
    world.reset_counters();
    for _ in 0..3 {
        let error = mount.path("odd").metadata().expect_err("S3 refuses it");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
    assert!(mount.log().contains("InvalidRequest"), "{}", mount.log());
    assert_eq!(mount.read("file"), b"x");
    // 1,024 bytes at most are a key.
    let long = format!("{0}/{0}/{0}/{0}/{0}", "n".repeat(250));
    let before = world.counters().head;
    let error = mount.path(&long).metadata().expect_err("no key");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert_eq!(world.counters().head, before + 4);
    assert_eq!(world.counters().credentials_issued, 0);
}

/// What reads wait for is not what the start waits for.
#[test]
fn reads_that_wait_for_no_credentials_have_them_from_the_start() {
    let world = world([("file", "content")]);
    let mount = Mount::with_args(&world, &["--credential-wait", "0"]);
    assert_eq!(mount.read("file"), b"content");
}

#[test]
fn an_outage_longer_than_the_life_gives_ekeyexpired_and_heals_by_itself() {
    let object = [("file", Content::Synthetic { size: 1 << 40 })];
    let world = world_with(object, |settings| {
        settings.lifetime = Duration::from_secs(3);
    });
    let mut program = program(&world);
    program.args(["--credential-wait", "2"]);
    let mount = Mount::with(program, crate::support::BUCKET);
    let file = File::open(mount.path("file")).expect("open");
    world.set_answer(Answer::Status(503, "down".to_owned()));
    let mut offset = 0;
    let begin = Instant::now();
    let error = loop {
        // Further and further on, so that each read needs S3.
        offset += 9 << 20;
        if let Err(error) = file.read_exact_at(&mut [0; 10], offset) {
            break error;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "reads go on without credentials"
        );
    };
    assert_eq!(error.raw_os_error(), Some(libc::EKEYEXPIRED));
    assert_eq!(world.counters().expired_refused, 0);
    mount.log_with("cannot renew the credentials");
    world.set_answer(Answer::Normal);
    let begin = Instant::now();
    while file.read_exact_at(&mut [0; 10], offset).is_err() {
        assert!(
            begin.elapsed() < PATIENCE,
            "does not heal:\n{}",
            mount.log()
        );
    }
}
