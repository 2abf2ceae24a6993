"""The readers of the benchmark: a process of their own, so that their CPU time is not the mount's.

    python3 reader.py JSON

JSON says what to read; one line of JSON on stdout says how it went. Every read is compared with what the mock computes
for (key, offset), see tests/mock-earthdata/src/synthetic.rs: small reads whole, streams 4 KiB of each MiB.
"""

import http.client
import json
import mmap
import os
import random
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

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
    for at in range(0, len(data), PERIOD):
        piece = data[at : at + PERIOD]
        place = (start + offset + at) % PERIOD
        if piece != table[place : place + len(piece)]:
            raise Wrong(f"wrong bytes in {where} at {offset + at}")


def parts(job, index):
    """What a worker reads of which key: its share of the keys, its share of the one key, or all of it."""
    if job["share"] == "keys":
        return [(key, 0, job["length"]) for key in job["keys"][index :: job["workers"]]]
    part = job["length"] // job["workers"]
    whole = (0, job["length"])
    return [(job["keys"][0], *((index * part, (index + 1) * part) if job["share"] == "parts" else whole))]


def stream(job, index, table, until):
    """Reads files or parts of them one after another by 1 MiB, as dd bs=1M does, or by less, and skips as much as it is
    told to."""
    piece = job.get("piece", MIB)
    buffer = bytearray(piece)
    view = memoryview(buffer)
    done = 0
    for key, offset, end in parts(job, index):
        start = start_of(key)
        fd = os.open(f"{job['root']}/{key}", os.O_RDONLY)
        try:
            while offset < end:
                count = os.preadv(fd, [view[: min(piece, end - offset)]], offset)
                if count == 0:
                    raise Wrong(f"{key} ends at {offset}")
                # Another part of each MiB, so that all places within a block get their turn.
                at = (offset // MIB * 37 * 4096) % MIB
                at = at if at + 4096 <= count else max(0, count - 4096)
                if offset % MIB < piece:
                    check(table, start, offset + at, bytes(view[at : min(at + 4096, count)]), key)
                done += count
                offset += count + job.get("skip", 0)
                if time.monotonic() > until:
                    return done, done // MIB, [], True
        finally:
            os.close(fd)
    return done, done // MIB, [], False


def pieces(job, index, table, until):
    """Reads the pieces of one file that the job lists, in that order."""
    key, done, times = job["keys"][0], 0, []
    fd = os.open(f"{job['root']}/{key}", os.O_RDONLY)
    try:
        for offset, length in job["pieces"][index :: job["workers"]]:
            begin = time.monotonic()
            if begin > until:
                return done, len(times), times, True
            data = os.pread(fd, length, offset)
            times.append(time.monotonic() - begin)
            if len(data) != length:
                raise Wrong(f"{len(data)} bytes instead of {length} at {offset}")
            check(table, start_of(key), offset, data, key)
            done += length
    finally:
        os.close(fd)
    return done, len(times), times, False


def in_turn(jobs, table, until):
    """Reads the pieces of several jobs of one worker, one job after the other."""
    done, times = 0, []
    for job in jobs:
        bytes_read, _, of_pieces, stopped = pieces(job, 0, table, until)
        done, times = done + bytes_read, times + of_pieces
        if stopped:
            return done, len(times), times, True
    return done, len(times), times, False


def anew(job, index, table, until):
    """Reads the pieces of one file that the job lists, in that order: the file is opened for each of them."""
    of_worker = job["pieces"][index :: job["workers"]]
    return in_turn((dict(job, pieces=[piece], workers=1) for piece in of_worker), table, until)


def opened(job, index):
    """What a worker has open before the clock starts."""
    return [os.open(f"{job['root']}/{key}", os.O_RDONLY) for key in job["keys"][index :: job["workers"]]]


def looked_at(job):
    """Of each a worker keeps open, the header was read."""
    fds = [os.open(f"{job['root']}/{key}", os.O_RDONLY) for key in job["beside"]]
    return [fd for fd in fds if os.pread(fd, 4096, 0)]


def from_server(job):
    """Reads the one key by requests on one connection, as a program does that knows of S3."""
    url = urllib.parse.urlsplit(job["url"])
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=job["ca_file"])
        connection = http.client.HTTPSConnection(url.hostname, url.port, context=context)
    else:
        connection = http.client.HTTPConnection(url.hostname, url.port)
    connection.connect()

    def read(offset, length):
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        connection.request("GET", f"{url.path}/{job['keys'][0]}", headers=headers)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 206:
            raise Wrong(f"HTTP {answer.status}")
        return data

    return read


def reads(job):
    """A function that reads so many bytes at an offset of the one key: of the file, mapped or not, or from the server."""
    if "url" in job:
        return from_server(job)
    fd = os.open(f"{job['root']}/{job['keys'][0]}", os.O_RDONLY)
    if job["mapped"]:
        mapping = mmap.mmap(fd, job["length"], prot=mmap.PROT_READ)
        return lambda offset, length: mapping[offset : offset + length]
    return lambda offset, length: os.pread(fd, length, offset)


def at_random(job, index, table, until):
    """Reads blocks at random multiples of 4 KiB: each worker has the file open, or mapped, for itself."""
    key, block, size = job["keys"][0], job["block"], job["length"]
    start, read = start_of(key), job["reads"]
    numbers = random.Random(job["seed"] * 1000 + index)
    times = []
    for _ in range(job["count"] // job["workers"]):
        begin = time.monotonic()
        if begin > until:
            return len(times) * block, len(times), times, True
        offset = numbers.randrange((size - block) // 4096) * 4096
        data = read(offset, block)
        times.append(time.monotonic() - begin)
        if len(data) != block:
            raise Wrong(f"{len(data)} bytes instead of {block} at {offset}")
        check(table, start, offset, data, key)
    return len(times) * block, len(times), times, False


def boxes(job, index, table, until):
    """Reads the same pieces of each file; the workers take turns in the list."""
    of_worker = job["keys"][index :: job["workers"]]
    return in_turn((dict(job, keys=[key], workers=1) for key in of_worker), table, until)


def together(job, index, table, _):
    """Reads the beginnings of all its files at the same time, a thread to each."""
    keys = job["keys"][index :: job["workers"]]
    said = [None] * len(keys)

    def one(number):
        try:
            data = os.pread(job["fds"][number], job["length"], 0)
            if len(data) != job["length"]:
                raise Wrong(f"{keys[number]} ends at {len(data)}")
            check(table, start_of(keys[number]), 0, data, keys[number])
            said[number] = len(data)
        except (OSError, Wrong) as error:
            said[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(keys))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one_said in said:
        if isinstance(one_said, Exception):
            raise one_said
    return sum(said), len(said), [], False


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


KINDS = {
    "anew": anew,
    "stream": stream,
    "pieces": pieces,
    "boxes": boxes,
    "random": at_random,
    "files": files,
    "together": together,
}


def worker(job, index, table, gate, out):
    """One reader: opens what must be open, says a byte, waits for the gate, reads, says how it went."""
    with os.fdopen(out, "w") as pipe:
        try:
            begin = time.monotonic()
            if job["kind"] == "random":
                job["reads"] = reads(job)
            elif job["kind"] == "together":
                job["fds"] = opened(job, index)
            elif "beside" in job:
                job["held"] = looked_at(job)
            opening = time.monotonic() - begin
            print(end=".", file=pipe, flush=True)
            os.read(gate, 1)
            begin = time.monotonic()
            done, operations, times, stopped = KINDS[job["kind"]](job, index, table, begin + job["seconds"])
            said = {"begin": begin, "end": time.monotonic(), "bytes": done, "operations": operations}
            said.update(times=times[:20000], stopped=stopped, opening=opening)
        except (OSError, http.client.HTTPException, Wrong) as error:
            said = {"error": str(error).replace(job["root"] + "/", "")}
        json.dump(said, pipe)


def run(job):
    if job["kind"] == "command":
        return command(job)
    with open(job["table"], "rb") as file:
        table = file.read()
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
        pipes.append(os.fdopen(hear))
    # A byte of each, of its error if not of its readiness.
    first = [pipe.read(1) for pipe in pipes]
    os.write(release, b"x" * job["workers"])
    said = []
    for head, pipe in zip(first, pipes):
        with pipe:
            text = head.lstrip(".") + pipe.read()
        said.append(json.loads(text) if text else {"error": "the reader died"})
    for _ in pipes:
        os.wait()
    errors = [one["error"] for one in said if "error" in one]
    if errors:
        return {"error": errors[0]}
    times = sorted(time for one in said for time in one["times"])
    rates = [one["bytes"] / max(one["end"] - one["begin"], 1e-6) for one in said]
    result = {
        "seconds": max(one["end"] for one in said) - min(one["begin"] for one in said),
        "bytes": sum(one["bytes"] for one in said),
        "operations": sum(one["operations"] for one in said),
        "stopped": any(one["stopped"] for one in said),
        "open_seconds": max(one["opening"] for one in said),
        "slowest_of_mean": min(rates) / max(sum(rates) / len(rates), 1e-6),
    }
    # Bytes of the object that were read at all: others read the same again.
    result["distinct"] = max(one["bytes"] for one in said) if job.get("share") == "whole" else result["bytes"]
    if times:
        result.update(p50=times[len(times) // 2], p99=times[len(times) * 99 // 100], slowest=times[-1])
    return result


if __name__ == "__main__":
    try:
        print(json.dumps(run(json.loads(sys.argv[1]))))
    except (OSError, Wrong) as error:
        print(json.dumps({"error": str(error)}))
