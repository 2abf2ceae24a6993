//! What the files hold, and for how long it counts. The files themselves: `tests/main/sharing.rs`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn grant(id: &str) -> Grant {
    Grant {
        access_key_id: id.to_owned(),
        secret_access_key: "hunter2".into(),
        session_token: "hunter3".into(),
        remaining: HOUR,
        clock_ahead: 0,
    }
}

#[test]
fn a_grant_is_fresh_until_it_is_due_and_lives_until_it_ends() {
    let shared = SharedGrant::of(&grant("A"), HOUR);
    let fresh = |replaces, after| shared.is_fresh(replaces, HOUR + HOUR.mul_f64(after));
    let living = |replaces, after| shared.is_living(replaces, HOUR + HOUR.mul_f64(after));
    assert_eq!(shared.grant(HOUR * 3 / 2).remaining, HOUR / 2);
    assert!(fresh(None, 0.5) && fresh(Some("B"), 0.7));
    assert!(!fresh(None, 0.76) && living(None, 0.76));
    assert!(!living(None, 1.0));
    // It is the one that is to be replaced.
    assert!(!fresh(Some("A"), 0.1) && !living(Some("A"), 0.1));
}

#[test]
fn a_mark_holds_until_the_source_changes_and_that_of_a_locked_account_for_a_while() {
    let saved = Some(SystemTime::UNIX_EPOCH + HOUR);
    let wrong = Mark::new(Refusal::WrongPassword, saved, HOUR);
    assert_eq!(wrong.holds(saved, 100 * HOUR), Some(Refusal::WrongPassword));
    assert_eq!(wrong.holds(saved.map(|at| at + HOUR), HOUR), None);
    let locked = Mark::new(Refusal::Locked, None, HOUR);
    assert_eq!(locked.holds(None, HOUR * 9 / 8), Some(Refusal::Locked));
    assert_eq!(locked.holds(None, HOUR * 2), None);
}

#[test]
fn a_record_comes_back_whole_and_its_debug_text_says_nothing() {
    let record = Record {
        grant: Some(SharedGrant::of(&grant("A"), HOUR)),
        refused: Some(Mark::new(Refusal::Locked, Some(SystemTime::now()), HOUR)),
    };
    assert!(!format!("{record:?}").contains("hunter"));
    let text = serde_json::to_string(&record).expect("JSON");
    let back: Record = serde_json::from_str(&text).expect("the same");
    let back = back.grant.expect("a grant").grant(HOUR);
    assert_eq!((back.access_key_id.as_str(), back.remaining), ("A", HOUR));
    assert_eq!(back.secret_access_key.expose_secret(), "hunter2");
    assert_eq!(back.session_token.expose_secret(), "hunter3");
}

#[test]
fn the_name_tells_logins_apart_and_depends_on_the_directory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let name = |of: &str, identity: &str| {
        let entry = Entry::open(&directory.path().join(of), &identity.into()).expect("an entry");
        entry.path().file_name().map(std::ffi::OsStr::to_owned)
    };
    assert_eq!(name("a", "one"), name("a", "one"));
    assert_ne!(name("a", "one"), name("a", "two"));
    // Whoever guesses a login cannot compute its name.
    assert_ne!(name("a", "one"), name("b", "one"));
}

#[test]
fn a_file_open_to_others_is_not_written_to() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    std::fs::write(&path, "").expect("a file");
    let check = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, permissions).expect("chmod");
        check_own(&path, &path.metadata().expect("it is there"))
    };
    assert!(check(0o600).is_ok());
    for mode in [0o640, 0o604, 0o660, 0o666] {
        assert!(check(mode).is_err(), "{mode:o}");
    }
}

#[test]
fn what_ended_is_removed_and_what_holds_stays() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let directory = temporary.path().join("cache");
    let entry = |login: &str| Entry::open(&directory, &login.into()).expect("an entry");
    let record = |refused: Option<Refusal>| Record {
        grant: Some(SharedGrant::of(&grant("A"), HOUR)),
        refused: refused.map(|refusal| Mark::new(refusal, None, HOUR)),
    };
    let [ended, locked, wrong, held, renewed, lone] =
        ["ended", "locked", "wrong", "held", "renewed", "lone"].map(entry);
    for (entry, refused) in [
        (&ended, None),
        (&locked, Some(Refusal::Locked)),
        (&wrong, Some(Refusal::WrongPassword)),
        (&held, None),
        (&renewed, None),
    ] {
        drop(entry.try_lock().expect("a lock"));
        entry.write(&record(refused)).expect("written");
    }
    let _held = held.try_lock().expect("a lock").expect("free");
    drop(lone.try_lock().expect("a lock"));
    let left_over = directory.join(".tmpAbC");
    std::fs::write(&left_over, "").expect("written");
    std::fs::set_permissions(&left_over, Permissions::from_mode(0o600)).expect("ours");
    let names = || {
        let files = std::fs::read_dir(&directory).expect("a directory");
        let names = files.map(|file| file.expect("a file").path());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    for path in &before {
        let file = File::options().write(true).open(path).expect("a file");
        file.set_modified(SystemTime::now() - OLD - HOUR)
            .expect("ours");
    }
    // Its lock is as old as the others.
    renewed.write(&record(None)).expect("written");
    let lock = |entry: &Entry| entry.path().with_extension("lock");
    let gone = [&ended, &locked].map(|entry| [entry.path().to_owned(), lock(entry)]);
    let gone: Vec<_> = gone
        .into_iter()
        .flatten()
        .chain([lock(&lone), left_over])
        .collect();
    let left = before.into_iter().filter(|path| !gone.contains(path));
    assert_eq!(names(), left.collect());
}
