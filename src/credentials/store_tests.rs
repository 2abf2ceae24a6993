//! What the files hold, and for how long it counts. The files themselves: `tests/main/sharing.rs`.

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
