"""One cell of the table: a fresh mock, a fresh mount, a reader, and what they took."""

import ctypes
import json
import os
import select
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchlib import reader, samples
from benchlib.systems import BARE, MOUNTS, clean_environment
from benchlib.works import IN_FULL, SHAPES

READER = Path(reader.__file__)
START_SECONDS = 20
TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
MNT_DETACH = 2
libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """Goes into the cell."""


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(command, **more):
    """A process in a session of its own, so that Ctrl-C is ours alone, which ends when this one dies."""
    return subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent, **more)


def end(process, seconds=5):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(seconds)


def last_line(path):
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1][-200:] if lines else "it ended without a word"


class Mock:
    """The server: lean, shaped by the profile, with the objects and files of one work."""

    def __init__(self, program, profile, objects, directory, work):
        shape = SHAPES[profile]
        command = [program, "--lean", "--until-stdin-closes", "--first-byte", str(shape["first_byte"])]
        command += ["--per-key", str(shape["per_key"])]
        for what in ("bandwidth", "link"):
            if shape[what]:
                command += [f"--{what}", str(shape[what])]
        self.ca_file = str(work / "ca.pem") if shape["tls"] else None
        if self.ca_file:
            command += ["--tls", "--ca-file", self.ca_file]
        for spec in objects:
            command += ["--synthetic", spec]
        if directory:
            command += ["--dir", str(directory)]
        self.log = work / "mock.log"
        with open(self.log, "wb") as log:
            self.process = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            ready, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
            words = self.process.stdout.readline().decode().split() if ready else []
            said = dict(word.split("=", 1) for word in words if "=" in word)
            if "S3_URL" not in said:
                raise Failed(f"the mock: {last_line(self.log)}")
        except BaseException:
            self.stop()
            raise
        self.s3_url, self.bucket = said["S3_URL"].rstrip("/"), said["BUCKET"]
        host = said["EARTHDATA_HOST"]
        self.control = host if "://" in host else f"{'https' if self.ca_file else 'http'}://{host}"
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        handlers = [urllib.request.ProxyHandler({})]
        if context:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self.opener = urllib.request.build_opener(*handlers)

    def ask(self, method, path):
        request = urllib.request.Request(f"{self.control}/_mock/{path}", method=method)
        with self.opener.open(request, timeout=10) as answer:
            return json.loads(answer.read())

    def stop(self):
        end(self.process)
        self.process.stdin.close()
        self.process.stdout.close()


class Mount:
    """One system, mounted in the foreground."""

    def __init__(self, system, mock, work):
        name, program, _ = system
        self.mountpoint = work / "mnt"
        self.mountpoint.mkdir()
        self.log = work / "mount.log"
        command, environment = MOUNTS[name](program, mock, str(self.mountpoint), work)
        environment = {**clean_environment(work), **environment}
        with open(self.log, "wb") as log:
            self.process = start(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=work
            )
        try:
            limit = time.monotonic() + START_SECONDS
            while not mounted(self.mountpoint):
                if self.process.poll() is not None:
                    raise Failed(last_line(self.log))
                if time.monotonic() > limit:
                    raise Failed(f"not mounted in {START_SECONDS} s")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        # Detached first: a process that hangs in the mount is free as soon as its server is gone.
        if mounted(self.mountpoint) and libc.umount2(os.fsencode(self.mountpoint), MNT_DETACH):
            for tool in ("fusermount3", "fusermount"):
                if shutil.which(tool):
                    subprocess.run([tool, "-u", "-z", self.mountpoint], stderr=subprocess.DEVNULL)
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            end(self.process)

    def died(self):
        return None if self.process.poll() is None else last_line(self.log)

    def processes(self):
        """The mount's process and those below it."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    parents.setdefault(int(fields[1]), []).append(int(entry))
                except OSError:
                    continue
        found, pending = [], [self.process.pid]
        while pending:
            found.append(pending.pop())
            pending += parents.get(found[-1], [])
        return found

    def cpu(self):
        """CPU seconds so far, of all threads and children."""
        ticks = 0
        for pid in self.processes():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(field) for field in fields[11:15])
            except OSError:
                continue
        return ticks / TICKS

    def peak(self):
        """The most memory it ever had, in bytes: VmHWM."""
        total = 0
        for pid in self.processes():
            try:
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        total += int(line.split()[1]) * 1024
            except OSError:
                continue
        return total


class Bare:
    """No mount: the reader asks the server itself."""

    def __init__(self, mock, work):
        self.mountpoint = work
        self.url = f"{mock.s3_url}/{mock.bucket}"
        self.ca_file = mock.ca_file

    def stop(self):
        pass

    def died(self):
        return None

    def cpu(self):
        return None

    def peak(self):
        return None


def mounted(path):
    # Not by stat: it would ask the file system, which may hang.
    wanted = str(path).replace(" ", "\\040")
    return any(line.split()[4] == wanted for line in Path("/proc/self/mountinfo").read_text().splitlines())


def drop_caches():
    if os.geteuid() == 0:
        try:
            Path("/proc/sys/vm/drop_caches").write_text("3")
        except OSError:
            pass


class Bench:
    """Programs, limits, and the directory that all of it happens in."""

    def __init__(self, mock, soft, hard):
        self.mock = mock
        # Readers that count what they did stop after `soft` seconds; what has to be done in full may take `hard`.
        self.soft, self.hard = soft, hard
        self.base = Path(tempfile.mkdtemp(prefix="s3credmount-bench."))
        self.table = self.base / "table"
        self.table.write_bytes(reader.make_table())
        self.count = 0

    def close(self):
        # What could not be unmounted is left alone rather than deleted through.
        if not any(str(self.base) in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
            shutil.rmtree(self.base, ignore_errors=True)
        else:
            print(f"bench: something is still mounted below {self.base}", file=sys.stderr)

    def read(self, job, work, mount, patience=1):
        """Runs a reader to its end or its limit."""
        job = dict(job, root=str(mount.mountpoint), table=str(self.table), output=str(work / "output"))
        job["seconds"] = self.soft * job.get("patience", patience)
        if isinstance(mount, Bare):
            job.update(url=mount.url, ca_file=mount.ca_file)
        if job["kind"] == "sample":
            job["path"] = f"{mount.mountpoint}/{job['key']}"
        limit = self.hard if job["kind"] in IN_FULL else job["seconds"] + min(self.hard, 30)
        process = start(
            samples.command(job) if job["kind"] == "sample" else [sys.executable, str(READER), json.dumps(job)],
            env=samples.environment(work),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=mount.mountpoint,
        )
        try:
            out, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"not done in {limit:.0f} s") from None
        finally:
            if process.poll() is None:
                # The whole session: workers and ls too. They are gone when the mount is.
                os.killpg(process.pid, signal.SIGKILL)
        if mount.died():
            raise Failed(f"it died: {mount.died()}")
        said = json.loads(out) if out else {"error": "the reader died"}
        if "error" in said:
            raise Failed(said["error"])
        # It has been compared, and of figures there are medians.
        said.pop("digest", None)
        return said

    def measure(self, system, work, profile):
        """All figures of one cell."""
        if system[0] == BARE and not work.suits_a_bare_client:
            return {"left_out": True}
        self.count += 1
        here = self.base / str(self.count)
        here.mkdir()
        mock = mount = None
        try:
            mock = Mock(self.mock, profile, work.objects, work.directory, here)
            mount = Bare(mock, here) if system[0] == BARE else Mount(system, mock, here)
            drop_caches()
            # Some look at the bucket right after they have mounted.
            time.sleep(0.3 + 4 * SHAPES[profile]["first_byte"] / 1000)
            if work.before:
                first = self.read(work.before, here, mount, 2)
                if first["stopped"]:
                    raise Failed(f"the first pass was not done in {2 * self.soft:.0f} s")
            mock.ask("POST", "reset")
            cpu = mount.cpu()
            try:
                result = self.read(work.job, here, mount)
            except Failed as failure:
                counters = mock.ask("GET", "counters")
                asked = ", ".join(f"{counters[name]} {name.upper()}" for name in ("get", "head", "list"))
                raise Failed(f"{failure} (after {asked})") from None
            cpu = None if cpu is None else mount.cpu() - cpu
            counters = mock.ask("GET", "counters")
            if work.before and result["stopped"]:
                raise Failed(f"not done in {self.soft:.0f} s")
            read = result["bytes"]
            return {
                "value": work.value(result),
                "limit": self.soft * work.job.get("patience", 1),
                "cpu_seconds": cpu,
                "cpu_seconds_per_gib": cpu * 2**30 / read if read and cpu is not None else None,
                "fetched_per_byte": counters["body_bytes"] / result.get("distinct", read) if read else None,
                "body_bytes": counters["body_bytes"],
                "get": counters["get"],
                "head": counters["head"],
                "list": counters["list"],
                "other": counters["forbidden_operations"],
                "max_in_flight": counters["max_in_flight"],
                "errors": sum(counters["errors"].values()),
                "peak_rss": mount.peak(),
                **{f"reader_{name}": value for name, value in result.items()},
            }
        except Failed as failure:
            return {"fails": str(failure)}
        except (OSError, ValueError) as error:
            return {"fails": f"{type(error).__name__}: {error}"}
        finally:
            if mount:
                mount.stop()
            if mock:
                mock.stop()
            if not mounted(here / "mnt"):
                shutil.rmtree(here, ignore_errors=True)


def median(rounds):
    """The rounds of one cell as one: medians of what went well, or the first failure if nothing did."""
    good = [one for one in rounds if "value" in one]
    if not good:
        return dict(rounds[0]) if rounds else {"fails": "not run"}
    result = {"rounds": len(good), "failed_rounds": len(rounds) - len(good)}
    for name, value in good[0].items():
        values = [one[name] for one in good if one.get(name) is not None]
        if isinstance(value, bool):
            result[name] = any(values)
        else:
            result[name] = statistics.median(values) if values else None
    return result
