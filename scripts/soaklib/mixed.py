"""The mixed soak: 32 readers of all sorts, faults in a tenth of S3's answers, credentials of 30 s.

Every byte, name and size is compared with what the mock computes. While the readers run, RSS, descriptors and threads of
the mount are sampled and hangs are looked for; at the end stands a table by quarters of the time, and a verdict.
"""

import json
import os
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchlib.run import mounted
from soaklib import load, world
from soaklib.table import Tally

LIFETIME = 30
MEMORY_MIB = 128
# What a call may take beyond its deadline where more processes than cores want to run.
SLACK = 10
# Readers of a sound mount have ended so long after the last deadline.
LAST_WORDS = 10
# How long the mount has to give back what the load needed: threads for blocking calls wait 10 s for more.
REST_SECONDS = 30
# Above this, retries do not do their work.
ERRORS_PER_MILLION = 10
# Errors are told one by one, up to so many.
MOST_LINES = 200
# With fewer faults than this among the answers it is no soak.
FAULTS = 0.09

# Answers of S3 that go wrong, each of the lists together in a tenth of all requests. Not among them: what no client can see
# over plain http (a flipped byte, names that are not there), and what is a real answer (no access, another version).
GETS = [
    *["slow-down", "internal-error", "time-too-skewed", "missing-etag", "wrong-content-range", "ignore-range"],
    *["reset-before", "reset-after=1000", "reset-after=100000", "cut-after=1", "cut-after=100000", "extra-bytes=17"],
    *["stall-before=2", "stall-before", "stall-after=100000,2", "stall-after=100000", "trickle=1000", "trickle=100000"],
]
LISTS = [
    *["slow-down", "internal-error", "time-too-skewed", "not-xml", "cut-xml", "reset-before", "reset-after=300"],
    *["cut-after=300", "extra-bytes=17", "stall-before=2", "stall-before", "stall-after=300,2", "stall-after=300"],
    *["trickle=1000", "trickle=100000"],
]
# What happens now and then, by the seconds between: all connections die, as after a change of networks, and S3 does not
# know the credentials any more before their time (new ones are fetched once in 30 s).
EVENTS = [(23, "connections", "kill"), (47, "faults", "any:*:1:expired")]


def rules():
    """The faults as the mock wants them: periods that have no common factor, so that each meets all sorts of requests."""
    lines = []
    for operation, faults in (("get", GETS), ("list", LISTS)):
        # Not all happen: an answer may be too short for its fault.
        period = 6 * len(faults)
        for number, fault in enumerate(faults):
            period = next(n for n in range(period + 1, 2 * period) if all(n % k for k in range(2, int(n**0.5) + 1)))
            lines.append(f"{operation}:*:{number * 3}+*/{period}:{fault}")
    return "\n".join(lines)


class Soak:
    """One run."""

    def __init__(self, chosen, mock, mount):
        self.chosen, self.mock, self.mount = chosen, mock, mount
        self.wrong = []
        self.ended = {}
        self.rest = b""
        self.begin = time.monotonic()
        self.until = self.begin + chosen.minutes * 60
        self.tally = Tally(self.begin, self.until)

    def run(self):
        os.listdir(self.mount.root)
        at_start = world.figures(self.mount.pid)
        self.mock.tell("faults", rules())
        self.pids, self.slots, self.pipe = load.begin(
            self.chosen.readers, self.mount.root, self.until, self.chosen.seed
        )
        try:
            self.watch()
        finally:
            self.end_readers()
        self.faults, self.counters = self.mock.tell("faults"), self.mock.tell("counters")
        if self.is_there():
            self.come_to_rest(at_start)

    def watch(self):
        """Until all readers have ended, or do not end."""
        patience = max(load.CALLS.values()) * self.chosen.operation_timeout + SLACK + LAST_WORDS
        events = [(self.begin + seconds, *event) for seconds, *event in EVENTS]
        shown = self.begin
        while len(self.ended) < len(self.pids):
            self.listen(0.5)
            self.collect()
            now = time.monotonic()
            if not self.is_there():
                return
            self.tally.sampled(now, *world.figures(self.mount.pid))
            if self.hangs(now):
                return
            if now > self.until + patience:
                self.wrong.append(f"{len(self.pids) - len(self.ended)} readers do not end")
                return
            for number, (due, path, body) in enumerate(events):
                if due < now < self.until:
                    events[number] = (now + EVENTS[number][0], path, body)
                    self.mock.tell(path, body)
            if now > shown + 30:
                shown = now
                print(self.tally.line(now), file=sys.stderr, flush=True)
        self.listen(0)

    def is_there(self):
        if self.mount.process.poll() is not None:
            self.wrong.append(f"the mount ended by itself, with status {self.mount.process.returncode}")
        elif not mounted(self.mount.root):
            self.wrong.append("somebody unmounted it")
        else:
            return True
        return False

    def listen(self, seconds):
        """Takes in what the readers say, for so long or until they are silent."""
        while select.select([self.pipe], [], [], seconds)[0]:
            seconds = 0
            said = os.read(self.pipe, 1 << 20)
            if not said:
                return
            *lines, self.rest = (self.rest + said).split(b"\n")
            for line in lines:
                try:
                    self.take(json.loads(line))
                except ValueError:
                    self.wrong.append(f"a reader says: {line[:200]!r}")

    def take(self, said):
        if "wrong" in said:
            self.wrong.append(said["wrong"])
        elif "error" in said:
            self.tally.failed(said)
            if self.tally.errors() > MOST_LINES:
                return
            print(
                f"{said['at'] - self.begin:6.1f} s  {said['call']} of {said['key']}: {said['error']} after "
                f"{said['seconds']:.1f} s",
                file=sys.stderr,
            )
        else:
            self.tally.done(said)

    def collect(self):
        """Notes which readers have ended."""
        for number, pid in enumerate(self.pids):
            if number not in self.ended:
                gone, status = os.waitpid(pid, os.WNOHANG)
                if gone:
                    self.ended[number] = status
                    if status:
                        self.wrong.append(f"reader {number} died with status {status:#x}")

    def hangs(self, now):
        """Is a reader in a call for longer than its deadlines allow?"""
        names = list(load.CALLS)
        for number, pid in enumerate(self.pids):
            since, call = load.SLOT.unpack_from(self.slots, number * load.SLOT.size)
            name = names[call]
            most = load.CALLS[name] * self.chosen.operation_timeout + SLACK
            if number not in self.ended and since and now - since > most:
                where = Path(f"/proc/{pid}/wchan").read_text()
                self.wrong.append(f"reader {number} hangs: {name} for {now - since:.0f} s, in {where}")
                return True
        return False

    def end_readers(self):
        for number, pid in enumerate(self.pids):
            if number not in self.ended:
                # The session of each: what it forked, too.
                for kill in (os.killpg, os.kill):
                    try:
                        kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass

    def come_to_rest(self, at_start):
        """What the load needed is to be given back."""
        self.mock.tell("faults", method="DELETE")
        limit = time.monotonic() + REST_SECONDS
        descriptors, threads = [], []
        while True:
            # Connections are kept for the next request, for longer than this lasts: they end with their other side.
            self.mock.tell("connections", "kill")
            time.sleep(1)
            rss, *rest = world.figures(self.mount.pid)
            descriptors.append(rest[0])
            threads.append(rest[1])
            # The least: credentials are renewed meanwhile.
            at_rest = (rss, min(descriptors), min(threads))
            if (at_rest[1] <= at_start[1] and at_rest[2] <= at_start[2]) or time.monotonic() > limit:
                break
        self.tally.ends(at_start, at_rest)
        for name, before, after in zip(("descriptors", "threads"), at_start[1:], at_rest[1:]):
            if after > before:
                self.wrong.append(f"{after} {name} at the end, {before} at the start")

    def judge(self):
        """What the figures say, of a run that came to its end."""
        self.wrong += self.tally.judge(ERRORS_PER_MILLION, self.chosen.operation_timeout, SLACK)
        asked = sum(self.counters[name] for name in ("get", "list", "head"))
        fired = sum(rule["fired"] for rule in self.faults)
        if fired < asked * FAULTS:
            self.wrong.append(f"{fired} faults in {asked} requests are too few")
        for rule in self.faults:
            if not rule["fired"] and rule["matched"] > 1000:
                self.wrong.append(f"{rule['rule']} never happened")
        if self.counters["credentials_issued"] < (self.until - self.begin) / LIFETIME:
            self.wrong.append(f"credentials were issued {self.counters['credentials_issued']} times only")

    def show(self):
        print(self.tally.table())
        if hasattr(self, "faults"):
            asked = {name: self.counters[name] for name in ("get", "list", "head")}
            fired = sorted(((rule["fired"], rule["rule"]) for rule in self.faults if rule["fired"]), reverse=True)
            once = sum(count for count, rule in fired if rule.endswith("expired"))
            by_name = [f"{rule.rsplit(':', 1)[1]} {count}" for count, rule in fired if not rule.endswith("expired")]
            print(
                f"\n{sum(asked.values()):,} requests ({', '.join(f'{n:,} {name.upper()}' for name, n in asked.items())}), "
                f"{sum(count for count, _ in fired):,} faults: {', '.join(by_name)}, expired {once}\n"
                f"{self.counters['credentials_issued']} credentials issued in {self.counters['credentials_requests']} requests"
            )


def mixed(chosen):
    """Runs it. What went wrong."""
    arguments = ["--lifetime", str(LIFETIME), "--fail-every", "3", "--first-byte", "20", "--bandwidth", "90000000"]
    for spec in load.SPECS:
        arguments += ["--synthetic", spec]
    options = ["--memory-limit", f"{MEMORY_MIB}MiB", "--metadata-ttl", "10s"]
    options += ["--operation-timeout", str(chosen.operation_timeout)]
    with tempfile.TemporaryDirectory(prefix="s3credmount-soak-") as work:
        work = Path(work)
        with world.Mock(chosen, work, *arguments) as mock, world.Mount(chosen, mock, work, *options) as mount:
            soak = Soak(chosen, mock, mount)
            try:
                soak.run()
                soak.judge()
                if mount.stop() != 0:
                    soak.wrong.append("the mount did not end with status 0 within 30 s")
            except KeyboardInterrupt:
                print("Interrupted: what is known so far follows.", file=sys.stderr)
                soak.wrong.append("interrupted")
            except BaseException:
                world.set_aside(mount.log, "soak-mount.log")
                raise
            log = mount.log.read_text(errors="replace")
            soak.wrong += [f"the log has: {line}" for line in log.splitlines() if "panicked" in line][:5]
            if soak.wrong or soak.tally.errors():
                print(f"soak: the log of the mount is {world.set_aside(mount.log, 'soak-mount.log')}", file=sys.stderr)
            soak.show()
    return soak.wrong
