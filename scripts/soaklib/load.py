"""The readers of the mixed soak: a process each, which reads all sorts of things and compares every byte.

A reader tells the parent through a pipe what it did and what went wrong, a line of JSON each time, and in memory that
both share since when it has been in which call, so that the parent sees a hang while it lasts.
"""

import errno
import functools
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import time

from benchlib.reader import PERIOD, make_table, start_of
from benchlib.run import die_with_parent

KIB = 1 << 10
MIB = 1 << 20
TIB = 1 << 40

# What the mock holds, as its --synthetic says it; each has a part of the readers' attention.
HUGE, LARGE = ("huge", 8, TIB), ("large", 16, 48 * MIB)
SMALL_DIRECTORIES, SMALL_FILES, SMALL_SIZE = 40, 50, 30_000
WIDE, WIDE_SIZE = 5_000, 1_234
SPECS = [
    f"{HUGE[0]}:{HUGE[1]}:{HUGE[2]}",
    f"{LARGE[0]}:{LARGE[1]}:{LARGE[2]}",
    f"small:{SMALL_DIRECTORIES * SMALL_FILES}:{SMALL_SIZE}:{SMALL_FILES}",
    f"wide:{WIDE}:{WIDE_SIZE}",
]
WIDE_NAMES = {f"{i:08}.bin" for i in range(WIDE)}
SMALL_NAMES = {f"{i:06}.bin" for i in range(SMALL_FILES)}

# The calls that are timed, each with how many file operations of the mount it may wait for in turn: a path is looked
# up component by component, and a page fault may touch three of the kernel's windows.
CALLS = {"read": 1, "open": 3, "stat": 3, "opendir": 3, "readdir": 1, "mmap": 3}
SLOT = struct.Struct("db")
# A reader says what it did when so many seconds are over.
TELL_SECONDS = 1
# The exit status of a process that saw wrong bytes in a mapping.
WRONG_BYTES = 3


start = functools.cache(start_of)


class Wrong(Exception):
    """What was read is not what is there."""


class Reader:
    """One of them."""

    def __init__(self, number, root, until, table, slots, pipe, seed):
        self.number, self.root, self.until, self.table = number, root, until, table
        self.slots, self.pipe = slots, pipe
        self.random = random.Random(seed * 1000 + number)
        self.done = {}
        self.told = time.monotonic()
        self.open_files = {}

    def run(self):
        works = {self.stream: 4, self.at_random: 4, self.files: 3, self.walk: 1, self.list: 1, self.look: 2, self.map: 2}
        kinds, weights = list(works), list(works.values())
        while time.monotonic() < self.until:
            work = self.random.choices(kinds, weights)[0]
            try:
                work()
            except OSError:
                # Told already; what it belonged to is given up.
                pass
            except Wrong as wrong:
                self.say({"wrong": f"reader {self.number}: {wrong}"})
        self.tell()

    # What is done.

    def stream(self):
        """A part of an object from some place on, or all of one, by 128 KiB or 1 MiB."""
        if self.random.random() < 0.3:
            key, size = self.object(LARGE)
            offset, end = 0, size
        else:
            key, size = self.object(HUGE)
            offset = self.random.randrange(size - 64 * MIB)
            end = offset + self.random.randrange(1, 24 * MIB)
        step = self.random.choice((128 * KIB, MIB))
        with Open(self, key) as file:
            while offset < end:
                offset += self.read(file, key, offset, min(step, end - offset))
            if end == size and self.call("read", key, os.pread, file, 1, size):
                raise Wrong(f"{key} goes on behind its end")

    def at_random(self):
        """Small reads here and there in an object that stays open, as HDF5 does."""
        key, size = self.object(HUGE)
        if key not in self.open_files:
            self.open_files[key] = self.call("open", key, os.open, self.path(key), os.O_RDONLY)
        file = self.open_files[key]
        around = self.random.randrange(size - 64 * MIB)
        try:
            for _ in range(self.random.randrange(1, 20)):
                near = self.random.random() < 0.5
                offset = around + self.random.randrange(16 * MIB) if near else self.random.randrange(size - MIB)
                self.read(file, key, offset, self.random.choice((100, 4 * KIB, 64 * KIB, 300_000)))
        finally:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            if self.random.random() < 0.2:
                os.close(self.open_files.pop(key))

    def files(self):
        """Small files one after another in the order of their names, as tar does."""
        directory = self.random.randrange(SMALL_DIRECTORIES)
        first = self.random.randrange(SMALL_FILES)
        for number in range(first, min(first + 15, SMALL_FILES)):
            key = f"small/{directory:06}/{number:06}.bin"
            with Open(self, key) as file:
                if self.read(file, key, 0, SMALL_SIZE + 1) != SMALL_SIZE:
                    raise Wrong(f"{key} is not {SMALL_SIZE} bytes long")

    def walk(self):
        """All of the small directories, as find -size does."""
        directories = self.names("small")
        if directories != {f"{i:06}" for i in range(SMALL_DIRECTORIES)}:
            raise Wrong(f"small has {len(directories)} directories")
        for directory in sorted(directories):
            self.directory(f"small/{directory}", SMALL_NAMES, SMALL_SIZE, 1)

    def list(self):
        """A directory of several pages, as ls -l does with some of it."""
        self.directory("wide", WIDE_NAMES, WIDE_SIZE, 0.02)

    def look(self):
        """Names that are there, and names that are not."""
        for _ in range(self.random.randrange(1, 20)):
            key = f"small/{self.random.randrange(SMALL_DIRECTORIES):06}/{self.random.randrange(SMALL_FILES):06}.bin"
            self.size(key, SMALL_SIZE)
            absent = f"{key}.aux.xml" if self.random.random() < 0.5 else f"wide/{self.random.randrange(10**9)}.none"
            try:
                self.call("stat", absent, os.stat, self.path(absent), may=errno.ENOENT)
            except FileNotFoundError:
                continue
            raise Wrong(f"{absent} is there")

    def map(self):
        """A piece of an object in a mapping. A page that cannot be read ends a process with SIGBUS: so it has its own."""
        key, size = self.object(LARGE)
        length = self.random.randrange(1, 2 * MIB)
        offset = self.random.randrange(size - length) // mmap.PAGESIZE * mmap.PAGESIZE
        with Open(self, key) as file:
            self.call("mmap", key, self.touch, file, key, offset, length)
        self.count("mmap", length, 0, 0)

    def touch(self, file, key, offset, length):
        child = os.fork()
        if child == 0:
            die_with_parent()
            status = 1
            try:
                with mmap.mmap(file, length, prot=mmap.PROT_READ, offset=offset) as mapped:
                    status = 0 if mapped[:] == self.bytes(key, offset, length) else WRONG_BYTES
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS:
            raise OSError(errno.EIO, "SIGBUS")
        if os.WEXITSTATUS(status) == WRONG_BYTES:
            raise Wrong(f"wrong bytes in a mapping of {key}, {length} at {offset}")
        if status:
            raise Wrong(f"a mapping of {key} ended with {status:#x}")

    # How it is done.

    def object(self, some):
        prefix, count, size = some
        return f"{prefix}/{self.random.randrange(count):08}.bin", size

    def path(self, key):
        return f"{self.root}/{key}"

    def bytes(self, key, offset, length):
        """What the mock computes, see tests/mock-earthdata/src/synthetic.rs."""
        at = (start(key) + offset) % PERIOD
        return self.table[at : at + length]

    def read(self, file, key, offset, length):
        data = self.call("read", key, os.pread, file, length, offset)
        if not data:
            raise Wrong(f"{key} ends at {offset}")
        if data != self.bytes(key, offset, len(data)):
            raise Wrong(f"wrong bytes in {key}, {len(data)} at {offset}")
        self.count("read", len(data), 0, 0)
        return len(data)

    def size(self, key, expected):
        size = self.call("stat", key, os.stat, self.path(key)).st_size
        if size != expected:
            raise Wrong(f"{key} has a size of {size}")

    def names(self, key):
        entries = self.call("opendir", key, os.scandir, self.path(key))
        with entries:
            names = []
            while (entry := self.call("readdir", key, next, entries, None, counts=0)) is not None:
                names.append(entry.name)
        self.count("readdir", 0, 1, 0)
        if len(set(names)) != len(names):
            raise Wrong(f"{key} has names twice")
        return set(names)

    def directory(self, key, expected, size, part):
        names = self.names(key)
        if names != expected:
            missing, more = sorted(expected - names)[:3], sorted(names - expected)[:3]
            raise Wrong(f"{key} has {len(names)} names; missing: {missing}, not in the bucket: {more}")
        for name in names:
            if self.random.random() < part:
                self.size(f"{key}/{name}", size)

    def call(self, kind, key, call, *arguments, may=0, counts=1):
        """A call of the kernel, timed; its error is told, unless it is the one that may be."""
        begin = time.monotonic()
        SLOT.pack_into(self.slots, self.number * SLOT.size, begin, list(CALLS).index(kind))
        failed = None
        try:
            return call(*arguments)
        except OSError as error:
            failed = error.errno
            raise
        finally:
            took = time.monotonic() - begin
            SLOT.pack_into(self.slots, self.number * SLOT.size, 0, 0)
            self.count(kind, 0, counts, took)
            if failed is not None and failed != may:
                name = errno.errorcode.get(failed, str(failed))
                self.say({"error": name, "call": kind, "seconds": took, "key": key})

    def count(self, kind, size, calls, took):
        done = self.done.setdefault(kind, [0, 0, 0])
        done[0] += calls
        done[1] += size
        done[2] = max(done[2], took)
        if calls and time.monotonic() > self.told + TELL_SECONDS:
            self.tell()

    def tell(self):
        self.say({"done": self.done})
        self.done, self.told = {}, time.monotonic()

    def say(self, said):
        # Short enough to arrive in one piece, whoever else writes.
        try:
            os.write(self.pipe, json.dumps(dict(said, at=time.monotonic())).encode()[:4000] + b"\n")
        except BrokenPipeError:
            # Nobody listens any more.
            os._exit(1)


class Open:
    """A file that is open for a while, and not kept by the kernel: the next one to read it is to ask the mount."""

    def __init__(self, reader, key):
        self.file = reader.call("open", key, os.open, reader.path(key), os.O_RDONLY)

    def __enter__(self):
        return self.file

    def __exit__(self, *_):
        os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(self.file)


def begin(count, root, until, seed):
    """Starts the readers. Their process ids, the slots, and the pipe that they speak through."""
    # Any place in the first of four periods, and from there on what is read at a time: up to 2 MiB.
    table = make_table()[:PERIOD] * 4
    slots = mmap.mmap(-1, SLOT.size * count)
    hear, say = os.pipe()
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(hear)
                os.setsid()
                for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(ending, signal.SIG_DFL)
                die_with_parent()
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                Reader(number, root, until, table, slots, say, seed).run()
                status = 0
            except BaseException as error:  # noqa: BLE001
                print(f"soak: reader {number}: {type(error).__name__}: {error}", file=sys.stderr)
            finally:
                os._exit(status)
        pids.append(pid)
    os.close(say)
    return pids, slots, hear
