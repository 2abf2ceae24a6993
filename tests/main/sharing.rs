//! What the processes of a user on one host share: credentials, and the mark of a refused password.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mock_earthdata::{
    Answer, Content, DEFAULT_PASSWORD, DEFAULT_TOKEN, DEFAULT_USER, Fault, FaultRule, User, World,
};
use tempfile::TempDir;

use crate::failing::{mountpoint, refusal, says, small_world, with_password};
use crate::support::{
    self, BUCKET, Mount, eventually, is_mount_point, program, program_at, wait, world_with,
};

/// A directory that is not there yet, in one that is removed in the end.
fn cache() -> (TempDir, PathBuf) {
    let parent = mountpoint();
    let cache = parent.path().join("cache");
    (parent, cache)
}

fn sharing(mut command: Command, cache: &Path) -> Command {
    command.arg("--credentials-cache").arg(cache);
    command
}

/// The files of a cache that hold what was granted or refused.
fn records(cache: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(cache).expect("the cache");
    let paths = files.map(|file| file.expect("a file").path());
    let is_record = |path: &PathBuf| path.extension().is_none() && !path.ends_with("key");
    paths.filter(is_record).collect()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Runs `work` with `count` mounts that were started together.
fn together(world: &World, cache: &Path, count: usize, work: impl Fn(&Mount) + Sync) {
    let ready = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                ready.wait();
                let mount = Mount::with(sharing(program(world), cache), BUCKET);
                work(&mount);
                // All of them at once, or the last would find what the first had got.
                ready.wait();
            });
        }
    });
}

/// Issue 4: 64 processes started together on one host make one `/s3credentials` request.
#[test]
fn sixty_four_processes_started_together_make_one_request() {
    let world = small_world();
    // The answer takes long enough for all of them to want it.
    world.set_answer(Answer::Slow(Duration::from_secs(3)));
    let (_parent, cache) = cache();
    together(&world, &cache, 64, |mount| {
        assert_eq!(mount.read("file"), b"content");
    });
    let counters = world.counters();
    assert_eq!(counters.credentials_requests, 1);
    assert_eq!(counters.credentials_issued, 1);
    assert_eq!(counters.errors.values().sum::<u64>(), 0);
}

#[test]
fn one_process_renews_for_all_of_them() {
    let object = [("file", Content::Synthetic { size: 1 << 40 })];
    let world = world_with(object, |settings| {
        settings.lifetime = Duration::from_secs(6)
    });
    let (_parent, cache) = cache();
    let begin = Instant::now();
    together(&world, &cache, 8, |mount| {
        let file = std::fs::File::open(mount.path("file")).expect("open");
        let mut offset = 0;
        while begin.elapsed() < Duration::from_secs(20) {
            offset += 9 << 20;
            let read = std::os::unix::fs::FileExt::read_exact_at(&file, &mut [0; 10], offset);
            read.unwrap_or_else(|error| panic!("{error}\n{}", mount.log()));
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let counters = world.counters();
    // One alone would renew each 3.2 to 4.5 s; the mounts take time to begin and to end.
    let lived = begin.elapsed().as_secs();
    let most = 1 + lived / 3;
    let issued = counters.credentials_issued;
    assert!((4..=most).contains(&issued), "{issued} in {lived} s");
    assert_eq!(counters.credentials_requests, issued);
}

#[test]
fn what_s3_rejects_is_replaced_once_for_all() {
    let world = world_with([("file", "content"), ("other", "more")], |_| {});
    let (_parent, cache) = cache();
    let spoiled = std::sync::Barrier::new(8);
    together(&world, &cache, 8, |mount| {
        assert_eq!(mount.read("file"), b"content");
        if spoiled.wait().is_leader() {
            world.reset_counters();
            world.expire_all();
        }
        spoiled.wait();
        assert_eq!(mount.read("other"), b"more");
    });
    assert_eq!(world.counters().credentials_issued, 1);
}

/// Accounts are locked after some failures: whatever the number of jobs, the password goes out once.
#[test]
fn a_wrong_password_is_sent_once_by_all_processes_of_the_host() {
    let world = small_world();
    let (_parent, cache) = cache();
    let command = |password| {
        let command = program_at(&world, &world.tea_endpoint());
        sharing(with_password(command, password), &cache)
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let message = refusal(command("wrong"));
                says(&message, &["refuses the password", DEFAULT_USER]);
            });
        }
    });
    assert_eq!(world.counters().wrong_passwords, 1);
    // It is wrong for every endpoint.
    let elsewhere = program_at(&world, &world.cumulus_endpoint());
    refusal(sharing(with_password(elsewhere, "wrong"), &cache));
    assert_eq!(world.counters().wrong_passwords, 1);
    let message = refusal(command("wrong"));
    let [record] = &records(&cache)[..] else {
        panic!("one record, for one login");
    };
    // What to do when the password was set at Earthdata Login to what is here.
    says(&message, &["remove", record.to_str().expect("UTF-8")]);
    assert_eq!(world.counters().wrong_passwords, 1);
    // Another password is another login.
    let mount = Mount::with(command(DEFAULT_PASSWORD), BUCKET);
    assert_eq!(mount.read("file"), b"content");
    assert_eq!(world.counters().wrong_passwords, 1);
    // And the way that the message shows is one.
    std::fs::remove_file(record).expect("it is there");
    refusal(command("wrong"));
    assert_eq!(world.counters().wrong_passwords, 2);
}

/// Nor is the process that had it refused without hope: not until it has ended.
#[test]
fn a_mark_that_is_removed_lets_the_running_process_try_again() {
    let world = world_with([("file", "content")], |settings| {
        settings.lifetime = Duration::from_secs(2);
    });
    let (_parent, cache) = cache();
    let command = program_at(&world, &world.tea_endpoint());
    let mut command = sharing(with_password(command, DEFAULT_PASSWORD), &cache);
    command.args(["--credential-wait", "1", "--metadata-ttl", "0"]);
    let mount = Mount::with(command, BUCKET);
    let with = |password: &str, token: &str| User {
        password: password.to_owned(),
        tokens: vec![token.to_owned()],
        ..User::default()
    };
    world.set_users(vec![with(
        "another",
        "eyJ0eXAiOiJKV1QifQ.eyJ1aWQiOiJ1In0.bmV4dA",
    )]);
    let log = mount.log_with("which says that it was refused");
    let path = log.split_once("remove ").expect("what to do").1;
    let mark = PathBuf::from(path.split_once(',').expect("the path").0);
    assert_eq!(world.counters().wrong_passwords, 1);
    // One that cannot be read is not one that was removed.
    let kept = mark.with_extension("kept");
    std::fs::rename(&mark, &kept).expect("it is there");
    std::fs::create_dir(&mark).expect("a directory");
    mount.log_with("shared credentials are not used");
    eventually("the end of what is held", || {
        mount.path("file").metadata().is_err()
    });
    assert_eq!(world.counters().wrong_passwords, 1);
    std::fs::remove_dir(&mark).expect("it is there");
    std::fs::rename(&kept, &mark).expect("it is there");
    world.set_users(vec![with(
        DEFAULT_PASSWORD,
        "eyJ0eXAiOiJKV1QifQ.eyJ1aWQiOiJ1In0.dGhpcmQ",
    )]);
    std::fs::remove_file(&mark).expect("it is there");
    eventually("the right password", || {
        mount.path("file").metadata().is_ok()
    });
    assert_eq!(world.counters().wrong_passwords, 1);
    assert!(!mark.exists());
}

/// A netrc that is saved again may be tried again, even with the same password.
#[test]
fn the_mark_of_a_refused_password_falls_when_the_netrc_is_saved() {
    let world = small_world();
    let (parent, cache) = cache();
    let netrc = parent.path().join("netrc");
    let host = world.earthdata_host();
    let save = || {
        let text = format!("machine {host} login {DEFAULT_USER} password wrong");
        std::fs::write(&netrc, text).expect("a netrc");
    };
    let run = || {
        let mut command = program_at(&world, &world.tea_endpoint());
        command.arg("--netrc").arg(&netrc);
        refusal(sharing(command, &cache));
        world.counters().wrong_passwords
    };
    save();
    assert_eq!((run(), run()), (1, 1));
    // Times of files have a grain.
    std::thread::sleep(Duration::from_millis(20));
    save();
    assert_eq!((run(), run()), (2, 2));
}

/// An account of a service may act for several people.
#[test]
fn two_logins_share_nothing() {
    let other = User {
        name: "other".to_owned(),
        password: "secret".to_owned(),
        tokens: vec!["eyJ0eXAiOiJKV1QifQ.eyJ1aWQiOiJvdGhlciJ9.b3RoZXI".to_owned()],
        eula_accepted: true,
    };
    let token = other.tokens[0].clone();
    let world = world_with([("file", "content")], |settings| settings.users.push(other));
    let (_parent, cache) = cache();
    let mut mounts = Vec::new();
    for (endpoint, token) in [
        (world.tea_endpoint(), DEFAULT_TOKEN),
        (world.tea_endpoint(), &token),
        (world.cumulus_endpoint(), DEFAULT_TOKEN),
        // Again: nothing new to be asked.
        (world.cumulus_endpoint(), DEFAULT_TOKEN),
    ] {
        let mut command = sharing(program_at(&world, &endpoint), &cache);
        command.env("EARTHDATA_TOKEN", token);
        mounts.push(Mount::with(command, BUCKET));
    }
    assert_eq!(world.counters().credentials_requests, 3);
    assert_eq!(records(&cache).len(), 3);
}

#[test]
fn the_files_are_for_this_user_and_hold_no_login() {
    let world = small_world();
    let (_parent, cache) = cache();
    let command = with_password(program_at(&world, &world.tea_endpoint()), DEFAULT_PASSWORD);
    let mount = Mount::with(sharing(command, &cache), BUCKET);
    assert_eq!(mount.read("file"), b"content");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").mode() & 0o7777;
    assert_eq!(mode(&cache), 0o700);
    let files: Vec<_> = std::fs::read_dir(&cache).expect("the cache").collect();
    // The record, its lock, and the key of the names.
    assert_eq!(files.len(), 3);
    for file in files {
        let path = file.expect("a file").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let text = std::fs::read_to_string(&path).expect("text");
        for secret in [DEFAULT_TOKEN, DEFAULT_PASSWORD, "staple", DEFAULT_USER] {
            assert!(!text.contains(secret), "{}", path.display());
        }
    }
}

/// A holder of the lock that was killed, and one that was stopped: others get on.
#[test]
fn a_holder_of_the_lock_that_is_gone_or_stopped_holds_up_nobody_for_long() {
    let world = small_world();
    for signal in [libc::SIGKILL, libc::SIGSTOP] {
        let (_parent, cache) = cache();
        let mountpoint = mountpoint();
        world.reset_counters();
        world.set_answer(Answer::Hang);
        let mut holder = sharing(program(&world), &cache);
        holder.args(["--foreground", BUCKET]).arg(mountpoint.path());
        holder.stderr(std::process::Stdio::null());
        let mut holder = holder.spawn().expect("it starts");
        eventually("it asks", || world.counters().credentials_requests > 0);
        let send = |signal| {
            let pid = i32::try_from(holder.id()).expect("a pid");
            // SAFETY: `kill` takes no pointers, and the child has not been waited for.
            unsafe { libc::kill(pid, signal) };
        };
        send(signal);
        world.set_answer(Answer::Normal);
        let mount = Mount::with(sharing(program(&world), &cache), BUCKET);
        assert_eq!(mount.read("file"), b"content");
        let waited = mount
            .log_with("is mounted on")
            .contains("has been fetching credentials for too long");
        assert_eq!(waited, signal == libc::SIGSTOP, "{}", mount.log());
        drop(mount);
        // What the other one left is good for the next.
        let before = world.counters().credentials_requests;
        let next = Mount::with(sharing(program(&world), &cache), BUCKET);
        assert_eq!(next.read("file"), b"content");
        assert_eq!(world.counters().credentials_requests, before);
        send(libc::SIGKILL);
        holder.wait().expect("it ends");
        assert!(!is_mount_point(mountpoint.path()));
    }
}

/// A directory that others can get at is not used: asked for, it is an error.
#[test]
fn a_directory_that_is_open_to_others_is_refused() {
    let world = small_world();
    let (parent, cache) = cache();
    std::fs::create_dir(&cache).expect("a directory");
    set_mode(&cache, 0o750);
    let message = refusal(sharing(program(&world), &cache));
    says(&message, &[cache.to_str().expect("UTF-8"), "0700"]);
    says(&message, &["--credentials-cache", "none"]);
    std::fs::remove_dir(&cache).expect("it is empty");
    std::fs::write(&cache, "").expect("a file");
    says(
        &refusal(sharing(program(&world), &cache)),
        &["is not a directory"],
    );
    std::fs::remove_file(&cache).expect("it is there");
    let elsewhere = parent.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a directory");
    set_mode(&elsewhere, 0o700);
    std::os::unix::fs::symlink(&elsewhere, &cache).expect("a link");
    says(
        &refusal(sharing(program(&world), &cache)),
        &["is not a directory"],
    );
    // Whoever can change the directory above it can put another in its place.
    std::fs::remove_file(&cache).expect("it is there");
    set_mode(parent.path(), 0o777);
    says(
        &refusal(sharing(program(&world), &cache)),
        &["another user can change"],
    );
    set_mode(parent.path(), 0o700);
    let missing = parent.path().join("not/there");
    says(
        &refusal(sharing(program(&world), &missing)),
        &["No such file"],
    );
    if crate::ordinary::ordinary_uid() == crate::ordinary::NOBODY {
        std::fs::remove_dir(&cache).expect("made by the run before");
        std::fs::create_dir(&cache).expect("a directory");
        set_mode(&cache, 0o700);
        let nobody = Some(crate::ordinary::NOBODY);
        std::os::unix::fs::chown(&cache, nobody, nobody).expect("chown");
        says(
            &refusal(sharing(program(&world), &cache)),
            &["belongs to another user"],
        );
    }
    assert_eq!(world.counters().credentials_requests, 0);
    assert!(
        std::fs::read_dir(&elsewhere)
            .expect("a directory")
            .next()
            .is_none()
    );
}

/// A file that others could have written is not believed, and what is written is not for them.
#[test]
fn a_file_that_is_not_this_users_alone_is_not_believed() {
    let world = small_world();
    type Spoil = fn(&Path);
    let spoilers: [(&str, Spoil); 4] = [
        ("mode", |path| set_mode(path, 0o644)),
        ("garbage", |path| {
            std::fs::write(path, "{\"grant\":{").expect("a file")
        }),
        ("link", |path| {
            let target = path.with_extension("target");
            std::fs::rename(path, &target).expect("renamed");
            std::os::unix::fs::symlink(&target, path).expect("a link");
        }),
        ("owner", |path| {
            let other = Some(crate::ordinary::NOBODY);
            std::os::unix::fs::chown(path, other, other).expect("chown");
        }),
    ];
    for (what, spoil) in spoilers {
        if what == "owner" && crate::ordinary::ordinary_uid() != crate::ordinary::NOBODY {
            eprintln!("SKIPPED: only root can give files away");
            continue;
        }
        let (_parent, cache) = cache();
        world.reset_counters();
        drop(Mount::with(sharing(program(&world), &cache), BUCKET));
        let record = records(&cache).pop().expect("a record");
        spoil(&record);
        let mount = Mount::with(sharing(program(&world), &cache), BUCKET);
        assert_eq!(mount.read("file"), b"content");
        assert_eq!(world.counters().credentials_requests, 2, "{what}");
        let found = record.symlink_metadata().expect("replaced");
        assert!(found.is_file() && found.mode() & 0o7777 == 0o600, "{what}");
        // That one is believed.
        drop(Mount::with(sharing(program(&world), &cache), BUCKET));
        assert_eq!(world.counters().credentials_requests, 2, "{what}");
    }
}

/// Here another mount, whose server is silent; elsewhere a file server that is gone.
#[test]
fn a_file_system_that_does_not_answer_is_said_to_be_none_to_share_in() {
    let silent = small_world();
    let other = Mount::with_args(&silent, &["--operation-timeout", "600"]);
    silent.script(FaultRule::on_any().fault(Fault::StallBefore(None)));
    let cache = other.path("cache");
    let world = small_world();
    let mountpoint = mountpoint();
    let log = tempfile::NamedTempFile::new().expect("a log");
    let mut refused = sharing(program(&world), &cache);
    refused
        .args(["--foreground", BUCKET])
        .arg(mountpoint.path());
    refused.stderr(log.reopen().expect("a log"));
    let mut refused = refused.spawn().expect("it starts");
    let said = || std::fs::read_to_string(log.path()).expect("a log");
    eventually("it gives up", || said().contains("does not answer"));
    says(&said(), &[cache.to_str().expect("UTF-8")]);
    says(&said(), &["--credentials-cache", "none"]);
    // The kernel lets nobody go who waits for this one.
    silent.clear_faults();
    silent.kill_connections();
    let status = wait(&mut refused).expect("it ends");
    assert_eq!(status.code(), Some(1));
}

/// Where the files are by default: in the runtime directory of the user, or a temporary one.
#[test]
fn the_default_directory() {
    let world = small_world();
    let parent = mountpoint();
    let user = std::fs::metadata(parent.path()).expect("it is there").uid();
    let temporary = parent.path().join(format!("s3credmount-{user}"));
    let runtime = parent.path().join("run");
    let run = |runtime: &Path| {
        let mut command = program(&world);
        command
            .env_remove("S3CREDMOUNT_CREDENTIALS_CACHE")
            .env("XDG_RUNTIME_DIR", runtime)
            .env("TMPDIR", parent.path());
        drop(Mount::with(command, BUCKET));
    };
    run(&runtime);
    assert_eq!(
        records(&temporary).len(),
        1,
        "there is no runtime directory"
    );
    std::fs::create_dir(&runtime).expect("a directory");
    set_mode(&runtime, 0o700);
    run(&runtime);
    assert_eq!(records(&runtime.join("s3credmount")).len(), 1);
    assert_eq!(world.counters().credentials_requests, 2);
    // Neither can be used: each is on its own, and all goes well.
    set_mode(&runtime.join("s3credmount"), 0o755);
    set_mode(&temporary, 0o755);
    run(&runtime);
    run(&runtime);
    assert_eq!(world.counters().credentials_requests, 4);
}

#[test]
fn nothing_is_shared_where_the_cache_is_none() {
    let world = small_world();
    let parent = mountpoint();
    for _ in 0..2 {
        let mut command = sharing(program(&world), Path::new("none"));
        command
            .env("TMPDIR", parent.path())
            .env("XDG_RUNTIME_DIR", parent.path());
        command.current_dir(parent.path());
        drop(Mount::with(command, BUCKET));
    }
    assert_eq!(world.counters().credentials_requests, 2);
    assert!(
        std::fs::read_dir(parent.path())
            .expect("a directory")
            .next()
            .is_none()
    );
}

/// `check` is to find out whether the login works now: what another process has got does not tell.
#[test]
fn a_check_logs_in_whatever_others_share_but_sends_no_refused_password() {
    let world = small_world();
    let (_parent, cache) = cache();
    let run = |password| {
        let command = program_at(&world, &world.tea_endpoint());
        let given = with_password(sharing(command, &cache), password);
        let mut check = Command::new(given.get_program());
        check.arg("check").args(given.get_args()).arg(BUCKET);
        support::take_environment(&mut check, &given);
        let output = check.output().expect("it runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(run(DEFAULT_PASSWORD), (true, String::new()));
    assert_eq!(run(DEFAULT_PASSWORD), (true, String::new()));
    assert_eq!(world.counters().credentials_requests, 2);
    // What it got is there for others.
    let command = program_at(&world, &world.tea_endpoint());
    let command = sharing(with_password(command, DEFAULT_PASSWORD), &cache);
    drop(Mount::with(command, BUCKET));
    assert_eq!(world.counters().credentials_requests, 2);
    for _ in 0..2 {
        let (_, message) = run("wrong");
        says(&message, &["refuses the password"]);
    }
    assert_eq!(world.counters().wrong_passwords, 1);
}
