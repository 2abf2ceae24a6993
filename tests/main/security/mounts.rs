//! Who may read a mount, and what may be done with what is on it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::failing::small_world;
use crate::ordinary::{NOBODY, as_ordinary_user, can_mount, is_root};
use crate::support::{BUCKET, Mount, mount_table_line, program, world};

/// Lets others come as far as the mountpoint, which lies in a directory of this user's alone.
fn open_the_way(mount: &Mount) {
    let root = mount.root();
    let above = root.parent().expect("not the root");
    std::fs::set_permissions(above, Permissions::from_mode(0o755)).expect("chmod");
}

/// What another user gets of a file: its content, or what `cat` says.
fn read_by_another(mount: &Mount, name: &str) -> Result<Vec<u8>, String> {
    let mut cat = Command::new("cat");
    cat.arg(mount.path(name)).env("LC_ALL", "C");
    let output = as_ordinary_user(&mut cat).output().expect("cat starts");
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn other_users_read_as_far_as_the_modes_allow_and_not_at_all_without_allow_other() {
    if !is_root() {
        eprintln!("SKIPPED: only root can be another user");
        return;
    }
    let world = small_world();
    let nobody = NOBODY.to_string();
    let cases: [(&[&str], bool); 8] = [
        (&[], false),
        (&["--allow-other"], true),
        (&["--allow-other", "--file-mode", "0400"], false),
        (&["--allow-other", "--file-mode", "0440"], false),
        (&["--allow-other", "--file-mode", "0404"], true),
        (&["--allow-other", "--dir-mode", "0500"], false),
        (&["--allow-other", "--dir-mode", "0511"], true),
        (
            &["--allow-other", "--file-mode", "0400", "--uid", &nobody],
            true,
        ),
    ];
    for (arguments, may_read) in cases {
        let mount = Mount::with_args(&world, arguments);
        open_the_way(&mount);
        let read = read_by_another(&mount, "file");
        match may_read {
            true => assert_eq!(read.as_deref(), Ok(&b"content"[..]), "{arguments:?}"),
            false => {
                let said = read.expect_err("it may not be read");
                assert!(said.contains("Permission denied"), "{arguments:?}: {said}");
            }
        }
        // It is there to be read, by whoever mounted it.
        assert_eq!(mount.read("file"), b"content", "{arguments:?}");
    }
}

/// By root, who mounts by mount(2), and by an ordinary user, by fusermount3.
#[test]
fn nothing_runs_and_nothing_is_a_device_unless_asked_and_set_user_id_never_counts() {
    let world = world([("script", "#!/bin/sh\necho it runs\n")]);
    let can_mount_as_ordinary_user = can_mount();
    for ordinary in [false, true] {
        if ordinary && !can_mount_as_ordinary_user {
            continue;
        }
        for exec in [false, true] {
            let mut command = program(&world);
            command.args(["--file-mode", "0555"]);
            if exec {
                command.arg("--exec");
            }
            let mount = match ordinary {
                true => Mount::of_ordinary_user(command, BUCKET),
                false => Mount::with(command, BUCKET),
            };
            let line = mount_table_line(&mount.root()).expect("a mount");
            let options = line.split(' ').nth(3).expect("the options");
            let has = |option| options.split(',').any(|one| one == option);
            assert!(has("ro") && has("nosuid") && has("nodev"), "{line}");
            assert_eq!(has("noexec"), !exec, "{line}");
            let mut script = Command::new(mount.path("script"));
            if ordinary {
                as_ordinary_user(&mut script);
            }
            match script.output() {
                Ok(output) => assert!(exec && output.stdout == b"it runs\n", "{output:?}"),
                Err(error) => {
                    assert!(!exec, "{error}");
                    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
                }
            }
        }
    }
}

/// Modes that a mount cannot honour are not taken.
#[test]
fn modes_with_more_than_permissions_are_refused() {
    for (option, mode) in [
        ("--file-mode", "4755"),
        ("--file-mode", "2755"),
        ("--dir-mode", "1777"),
    ] {
        let mut command = crate::support::bare_program();
        let output = command
            .args([option, mode, BUCKET, "/nonexistent"])
            .output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(option), "{said}");
    }
}
