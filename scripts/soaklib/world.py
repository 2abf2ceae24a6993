"""The mock and the mount of a soak: real processes, which end with this one whatever happens to it."""

import json
import os
import select
import shutil
import subprocess
import urllib.request
from pathlib import Path

from benchlib.run import MNT_DETACH, end, last_line, libc, mounted, start

PRIVATE = ("AWS_", "EARTHDATA_", "S3CREDMOUNT_", "SSL_CERT_", "NETRC", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# The one that the mock takes by default.
TOKEN = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJ1aWQiOiJzY2llbnRpc3QifQ.bW9jay1zaWduYXR1cmUtMQ"
# Of a debug build, with a bucket of 100,000 files that no cache knows, on a machine that has other things to do.
START_SECONDS = 300


class Mock:
    """The outside world."""

    def __init__(self, chosen, work, *arguments):
        self.log = work / "mock.log"
        command = [chosen.programs / "mock-earthdata", "--until-stdin-closes", *arguments]
        with open(self.log, "wb") as log:
            self.process = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            words = first_line(self.process).split()
            if not words:
                raise SystemExit(f"soak: the mock does not start: {last_line(self.log)}")
        except BaseException:
            self.stop()
            raise
        self.said = dict(word.split("=", 1) for word in words)

    def tell(self, path, body=None, method=None):
        """POSTs `body` to a control path, or GETs it."""
        body = None if body is None else body.encode()
        url = f"http://{self.said['EARTHDATA_HOST']}/_mock/{path}"
        request = urllib.request.Request(url, body, method=method)
        with self.opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def stop(self):
        self.process.stdin.close()
        end(self.process)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Mount:
    """The mock's bucket, mounted in the foreground by token."""

    def __init__(self, chosen, mock, work, *arguments):
        self.root = work / "mnt"
        self.root.mkdir()
        self.log = work / "mount.log"
        environment = {k: v for k, v in os.environ.items() if not k.upper().startswith(PRIVATE)}
        environment.update(EARTHDATA_TOKEN=TOKEN, S3CREDMOUNT_CREDENTIALS_CACHE="none")
        said = mock.said
        command = [chosen.programs / "s3credmount", "--foreground", *arguments]
        command += ["--credentials-endpoint", said["TEA_ENDPOINT"], "--earthdata-host", said["EARTHDATA_HOST"]]
        command += ["--endpoint-url", said["S3_URL"], "--log-file", self.log, said["BUCKET"], self.root]
        self.process = start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment)
        self.pid = self.process.pid
        try:
            if not first_line(self.process):
                raise SystemExit("soak: no mount")
        except BaseException:
            self.stop()
            raise

    def stop(self):
        """Unmounts and ends it. Returns its exit status, or none if it had to be killed."""
        # By itself first: that, too, is to work.
        self.process.terminate()
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = None
        self.process.stdout.close()
        if mounted(self.root) and libc.umount2(os.fsencode(self.root), MNT_DETACH):
            for tool in ("fusermount3", "fusermount"):
                if shutil.which(tool):
                    subprocess.run([tool, "-u", "-z", self.root], stderr=subprocess.DEVNULL)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


def first_line(process):
    """What a program says when it is ready, or nothing."""
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    return process.stdout.readline().decode() if ready else ""


def figures(pid):
    """RSS in bytes, open descriptors, threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return int(status["VmRSS"].split()[0]) * 1024, descriptors, int(status["Threads"])


def peak_rss(pid):
    """The most memory it ever had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def set_aside(log, name):
    """Keeps a log beyond the end of the soak; where it is then."""
    kept = Path(__file__).resolve().parent.parent.parent / "target" / name
    shutil.copyfile(log, kept)
    return kept
