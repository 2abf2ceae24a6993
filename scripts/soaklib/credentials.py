"""The soak of the credentials: an endpoint that fails a third of the time, and a clock that jumps."""

import errno
import os
import random
import tempfile
import threading
import time
from pathlib import Path

from soaklib.world import Mock, Mount


class Reader(threading.Thread):
    """Reads where nobody has read before, so that each read needs S3, and notes how it went."""

    def __init__(self, path, number, readers):
        super().__init__(daemon=True)
        self.file = os.open(path, os.O_RDONLY)
        self.part = os.fstat(self.file).st_size // readers
        self.base = number * self.part
        self.reads = []  # (begin, end, errno or 0)
        self.over = False

    def run(self):
        while not self.over:
            offset = self.base + random.randrange(self.part - 4096)
            begin = time.monotonic()
            try:
                code = 0 if len(os.pread(self.file, 1000, offset)) == 1000 else errno.ENODATA
            except OSError as error:
                code = error.errno
            self.reads.append((begin, time.monotonic(), code))
            time.sleep(0.05)


def credentials(chosen):
    """Credentials of 6 s; an endpoint that is down a third of the time in windows shorter than the life left at a renewal,
    and once for longer; and a clock that jumps by two hours."""
    life, wait, heals_within = 6, 10, 5
    wrong = []
    with tempfile.TemporaryDirectory(prefix="s3credmount-soak-") as work, \
            Mock(chosen, Path(work), "--lifetime", str(life), "--synthetic", "object:1:4TiB") as mock, \
            Mount(chosen, mock, Path(work), "--credential-wait", str(wait)) as mount:
        [path] = [path for path in mount.root.rglob("*") if path.is_file()]
        readers = [Reader(path, number, chosen.readers) for number in range(chosen.readers)]
        for reader in readers:
            reader.start()
        begin = time.monotonic()
        end = begin + chosen.minutes * 60
        events = [("jump", begin + (end - begin) / 3), ("long", begin + (end - begin) * 2 / 3)]
        down = up = None
        for answer in iter(lambda: random.choice(["503 disabled", "500 broken", "424 no credentials"]), None):
            now = time.monotonic()
            if now > end:
                break
            if events and now > events[0][1]:
                event, _ = events.pop(0)
                if event == "jump":
                    mock.tell("clock", "7200")
                else:
                    down = now
                    mock.tell("answer", answer)
                    time.sleep(life + wait + 5)
                    mock.tell("answer", "normal")
                    up = time.monotonic()
                    time.sleep(2 * heals_within)
                report(begin, readers, mock, event)
            mock.tell("answer", answer)
            time.sleep(0.6)
            mock.tell("answer", "normal")
            time.sleep(1.2)
            if int(now - begin) % 30 < 2:
                report(begin, readers, mock)
        for reader in readers:
            reader.over = True
        for reader in readers:
            reader.join(wait + 30)
        counters = mock.tell("counters")
        report(begin, readers, mock, "end")
    for number, reader in enumerate(readers):
        failed = [(b, e, code) for b, e, code in reader.reads if code]
        outside = [one for one in failed if not (one[1] > down and one[0] < up)]
        if outside:
            wrong.append(f"reader {number}: {len(outside)} reads failed outside of the long outage")
        others = {errno.errorcode.get(code, code) for _, _, code in failed} - {"EKEYEXPIRED"}
        if others:
            wrong.append(f"reader {number}: failed with {', '.join(map(str, others))}")
        if not failed:
            wrong.append(f"reader {number}: did not notice the long outage")
        slowest = max((e - b for b, e, _ in failed), default=0)
        if slowest > wait + 1:
            wrong.append(f"reader {number}: a read failed after {slowest:.1f} s, not {wait} s")
        healed = min(e for b, e, code in reader.reads if not code and e > up) - up
        if healed > heals_within:
            wrong.append(f"reader {number}: healed {healed:.1f} s after the outage, not within {heals_within} s")
        print(f"reader {number}: {len(reader.reads)} reads, {len(failed)} failed, healed after {healed:.2f} s")
    if counters["expired_refused"]:
        wrong.append(f"{counters['expired_refused']} requests with expired credentials")
    return wrong


def report(begin, readers, mock, event=""):
    counters = mock.tell("counters")
    reads = sum(len(reader.reads) for reader in readers)
    failed = sum(1 for reader in readers for read in list(reader.reads) if read[2])
    print(
        f"{time.monotonic() - begin:5.0f} s  {reads} reads, {failed} failed; {counters['credentials_requests']} requests for "
        f"credentials, {counters['credentials_issued']} issued  {event}", flush=True
    )
