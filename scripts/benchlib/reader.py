"""The readers of the benchmark: a process of their own, so that their CPU time is not the mount's.

    python3 reader.py JSON

JSON says what to read; one line of JSON on stdout says how it went. Every read is compared with what the mock computes
for (key, offset), see tests/mock-earthdata/src/synthetic.rs: small reads whole, streams 4 KiB of each MiB.
"""

import json
import os
import random
import subprocess
import sys
import time

PERIOD = 999_983
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
MIB = 1 << 20


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def make_table():
    """Two periods, so that a piece of up to one period is one slice."""
    words = b"".join(mix((i * GOLDEN) & MASK).to_bytes(8, "little") for i in range((PERIOD + 7) // 8))
    return words[:PERIOD] * 2


def start_of(key):
    value = 0xCBF29CE484222325
    for byte in key.encode():
        value = ((value ^ byte) * 0x00000100000001B3) & MASK
    return mix(value) % PERIOD


class Wrong(Exception):
    """The bytes are not those of the object."""


def check(table, start, offset, data, where):
    at = (start + offset) % PERIOD
    if data != table[at : at + len(data)]:
        raise Wrong(f"wrong bytes in {where} at {offset}")


def stream(job, index, table, until):
    """Reads files one after another by 1 MiB, as dd bs=1M does."""
    buffer = bytearray(MIB)
    view = memoryview(buffer)
    done = 0
    for key in job["keys"][index :: job["workers"]]:
        start, offset = start_of(key), 0
        fd = os.open(f"{job['root']}/{key}", os.O_RDONLY)
        try:
            while offset < job["length"]:
                count = os.readv(fd, [view[: min(MIB, job["length"] - offset)]])
                if count == 0:
                    raise Wrong(f"{key} ends at {offset}")
                # Another part of each MiB, so that all places within a block get their turn.
                at = (offset // MIB * 37 * 4096) % MIB
                at = at if at + 4096 <= count else max(0, count - 4096)
                check(table, start, offset + at, bytes(view[at : min(at + 4096, count)]), key)
                offset += count
                done += count
                if time.monotonic() > until:
                    return done, done // MIB, [], True
        finally:
            os.close(fd)
    return done, done // MIB, [], False


def at_random(job, index, table, until):
    """Reads blocks at random multiples of 4 KiB: each worker has the file open for itself."""
    key, block, size = job["keys"][0], job["block"], job["length"]
    start, fd = start_of(key), job["fds"][index]
    numbers = random.Random(job["seed"] * 1000 + index)
    times = []
    for _ in range(job["count"] // job["workers"]):
        begin = time.monotonic()
        if begin > until:
            return len(times) * block, len(times), times, True
        offset = numbers.randrange((size - block) // 4096) * 4096
        data = os.pread(fd, block, offset)
        times.append(time.monotonic() - begin)
        if len(data) != block:
            raise Wrong(f"{len(data)} bytes instead of {block} at {offset}")
        check(table, start, offset, data, key)
    return len(times) * block, len(times), times, False


def files(job, index, table, until):
    """Opens, reads (all of it, or its beginning) and closes files; the workers take turns in the list."""
    done, times = 0, []
    for key in job["keys"][index :: job["workers"]]:
        begin = time.monotonic()
        if begin > until:
            return done, len(times), times, True
        fd = os.open(f"{job['root']}/{key}", os.O_RDONLY)
        try:
            data = b""
            while len(data) < job["length"]:
                more = os.pread(fd, job["length"] - len(data), len(data))
                if not more:
                    raise Wrong(f"{key} ends at {len(data)}")
                data = data + more if data else more
        finally:
            os.close(fd)
        times.append(time.monotonic() - begin)
        check(table, start_of(key), 0, data, key)
        done += len(data)
    return done, len(times), times, False


def command(job):
    """ls -l or find: the output goes to a file, and is counted afterwards."""
    environment = dict(os.environ, LC_ALL="C")
    with open(job["output"], "w+b") as out:
        subprocess.run(job["command"][:1] + ["--version"], stdout=subprocess.DEVNULL, check=True)
        begin = time.monotonic()
        status = subprocess.run(job["command"], stdout=out, stderr=subprocess.PIPE, env=environment)
        seconds = time.monotonic() - begin
        if status.returncode:
            lines = status.stderr.decode(errors="replace").strip().splitlines() or [f"status {status.returncode}"]
            raise Wrong(lines[-1])
        out.seek(0)
        names = 0
        for line in out:
            fields = line.split()
            if not fields[-1].endswith(b".bin"):
                continue
            names += 1
            if "size" in job and int(fields[4]) != job["size"]:
                raise Wrong(f"a size of {int(fields[4])} instead of {job['size']}")
    if names != job["names"]:
        raise Wrong(f"{names} names instead of {job['names']}")
    return {"seconds": seconds, "bytes": 0, "operations": names, "stopped": False}


KINDS = {"stream": stream, "random": at_random, "files": files}


def worker(job, index, table, gate, out):
    """One reader: waits for the gate, reads, says how it went."""
    os.read(gate, 1)
    begin = time.monotonic()
    try:
        done, operations, times, stopped = KINDS[job["kind"]](job, index, table, begin + job["seconds"])
        said = {"begin": begin, "end": time.monotonic(), "bytes": done, "operations": operations}
        said.update(times=times[:20000], stopped=stopped)
    except (OSError, Wrong) as error:
        said = {"error": str(error).replace(job["root"] + "/", "")}
    with os.fdopen(out, "w") as pipe:
        json.dump(said, pipe)


def run(job):
    if job["kind"] == "command":
        return command(job)
    with open(job["table"], "rb") as file:
        table = file.read()
    opening = time.monotonic()
    if job["kind"] == "random":
        job["fds"] = [os.open(f"{job['root']}/{job['keys'][0]}", os.O_RDONLY) for _ in range(job["workers"])]
    opening = time.monotonic() - opening
    gate, release = os.pipe()
    pipes = []
    for index in range(job["workers"]):
        hear, say = os.pipe()
        if os.fork() == 0:
            os.close(release)
            os.close(hear)
            worker(job, index, table, gate, say)
            os._exit(0)
        os.close(say)
        pipes.append(hear)
    os.write(release, b"x" * job["workers"])
    said = []
    for hear in pipes:
        with os.fdopen(hear) as pipe:
            text = pipe.read()
        said.append(json.loads(text) if text else {"error": "the reader died"})
    for _ in pipes:
        os.wait()
    errors = [one["error"] for one in said if "error" in one]
    if errors:
        return {"error": errors[0]}
    times = sorted(time for one in said for time in one["times"])
    result = {
        "seconds": max(one["end"] for one in said) - min(one["begin"] for one in said),
        "bytes": sum(one["bytes"] for one in said),
        "operations": sum(one["operations"] for one in said),
        "stopped": any(one["stopped"] for one in said),
        "open_seconds": opening,
    }
    if times:
        result.update(p50=times[len(times) // 2], p99=times[len(times) * 99 // 100], slowest=times[-1])
    return result


if __name__ == "__main__":
    try:
        print(json.dumps(run(json.loads(sys.argv[1]))))
    except (OSError, Wrong) as error:
        print(json.dumps({"error": str(error)}))
