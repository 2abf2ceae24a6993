"""The soak of real files: a bucket of 80,000 of them compares equal with where they come from."""

import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from soaklib import world

# So many files are asked for. Where no tree at hand has them, some are made.
ENOUGH = 80_000
AT_HAND = ("/usr/share", "~/.cargo/registry/src", "/usr/lib", "/usr/include")
PIECE = 1 << 20


def at_hand(work):
    """Trees with enough files between them."""
    chosen, count = [], 0
    for path in map(os.path.expanduser, AT_HAND):
        if count < ENOUGH and os.path.isdir(path):
            chosen.append(Path(path))
            count += len(files_of(path)[0])
    if count < ENOUGH:
        made = work / "made"
        numbers = random.Random(1)
        for number in range(ENOUGH - count):
            path = made / f"made {number // 100:04}" / f"file+{number % 100:02}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(numbers.randbytes(int(numbers.lognormvariate(7, 2)) % 1_000_000))
        chosen.append(made)
    return chosen


def files_of(root):
    """The regular files below `root` by name relative to it, each with size and time; and how many names no key can say.
    Symbolic links and other special files are left out. Directories are entered in the order of the listing, as find does."""
    found, unnamable = {}, 0
    pending = [""]
    while pending:
        below = pending.pop()
        directories = []
        with os.scandir(f"{root}/{below}") as entries:
            for entry in entries:
                name = f"{below}{entry.name}"
                try:
                    name.encode()
                except UnicodeEncodeError:
                    unnamable += 1
                    continue
                if entry.is_dir(follow_symlinks=False):
                    directories.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found[name] = (status.st_size, int(status.st_mtime))
        pending += reversed(directories)
    return found, unnamable


def compare(job):
    """Reads some files on both sides. How many bytes, and what differs."""
    original, copy, names = job
    size, wrong = 0, []
    for name in names:
        try:
            with open(f"{original}/{name}", "rb", buffering=0) as here, open(f"{copy}/{name}", "rb", buffering=0) as there:
                while True:
                    one, other = here.read(PIECE), there.read(PIECE)
                    while len(other) < len(one) and (more := there.read(len(one) - len(other))):
                        other += more
                    if one != other:
                        wrong.append(f"{name} differs")
                        break
                    if not one:
                        break
                    size += len(one)
        except OSError as error:
            wrong.append(f"{name}: {error}")
    return size, wrong


def tree(chosen):
    """Compares all. What differs."""
    with tempfile.TemporaryDirectory(prefix="s3credmount-soak-") as work:
        work = Path(work)
        directories = [directory.resolve() for directory in chosen.directories] or at_hand(work)
        arguments = ["--first-byte", "5"]
        expected, origin, unnamable = {}, {}, 0
        for directory in directories:
            arguments += ["--dir", directory]
            found, left_out = files_of(directory)
            expected.update(found)
            origin.update(dict.fromkeys(found, directory))
            unnamable += left_out
        with world.Mock(chosen, work, *arguments) as mock, world.Mount(chosen, mock, work) as mount:
            wrong = compared(chosen, mock, mount, expected, origin)
            asked, peak = mock.tell("counters"), world.peak_rss(mount.pid)
            if mount.stop() != 0:
                wrong.append("the mount did not end with status 0")
            if wrong:
                print(f"soak: the log of the mount is {world.set_aside(mount.log, 'soak-mount.log')}", file=sys.stderr)
    print(f"of {', '.join(map(str, directories))}; {unnamable} names that no key can say left out")
    print(f"{asked['get']:,} GET, {asked['list']:,} LIST, {asked['head']:,} HEAD; peak RSS {peak >> 20} MiB")
    return wrong


def compared(chosen, mock, mount, expected, origin):
    begin = time.monotonic()
    shown, _ = files_of(mount.root)
    walked = time.monotonic()
    print(f"{len(shown):,} files walked in {walked - begin:.1f} s, with {mock.tell('counters')['list']:,} LISTs", flush=True)
    wrong = [f"{name} is missing" for name in expected.keys() - shown.keys()]
    wrong += [f"{name} is not in the original" for name in shown.keys() - expected.keys()]
    both = sorted(expected.keys() & shown.keys())
    for name in both:
        if expected[name] != shown[name]:
            wrong.append(f"{name}: size and time are {shown[name]}, not {expected[name]}")
    # In the order of their names, as any program goes through them; each process has a stretch at a time.
    stretches = [both[at : at + 200] for at in range(0, len(both), 200)]
    jobs = [(origin[name], mount.root, [one for one in names if origin[one] == origin[name]])
            for names in stretches for name in {origin[one]: one for one in names}.values()]
    with multiprocessing.Pool(chosen.readers) as pool:
        size = 0
        for read, differ in pool.imap_unordered(compare, jobs):
            size += read
            wrong += differ
    took = time.monotonic() - walked
    print(f"{len(both):,} files, {size / 2**20:,.0f} MiB compared by {chosen.readers} processes in {took:.1f} s")
    if len(wrong) > 20:
        wrong = wrong[:20] + [f"and {len(wrong) - 20} more"]
    return wrong
