"""The works: which objects each needs, and what its readers do."""

import random

# Kinds of jobs that cannot be stopped half-way.
IN_FULL = ("command", "sample")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SEED = 20240701
SHAPES = {
    "unshaped": {"first_byte": 0, "bandwidth": None, "link": None, "per_key": 0, "tls": False},
    "s3": {"first_byte": 25, "bandwidth": 90_000_000, "link": None, "per_key": 90, "tls": False},
    "far": {"first_byte": 100, "bandwidth": 90_000_000, "link": None, "per_key": 90, "tls": False},
    "narrow": {"first_byte": 25, "bandwidth": 90_000_000, "link": 60_000_000, "per_key": 90, "tls": False},
    "s3-tls": {"first_byte": 25, "bandwidth": 90_000_000, "link": None, "per_key": 90, "tls": True},
}
PROFILES = {
    "unshaped": "no delay, no limit",
    "s3": "25 ms to the first byte, 90 MB/s a connection, 0.09 ms a listed key",
    "far": "100 ms to the first byte, 90 MB/s a connection, 0.09 ms a listed key",
    "narrow": "as s3, and 60 MB/s of all connections together, as of a small machine",
    "s3-tls": "as s3, over TLS",
}


class Work:
    """One work: `objects` are --synthetic of the mock, `job` goes to the reader; it may read a sample instead."""

    def __init__(self, name, title, unit, objects, job, before=None):
        self.name = name
        self.title = title
        self.unit = unit
        self.objects = objects
        self.job = job
        # Read first, and not measured.
        self.before = before
        # Which of benchlib/samples.py; the directory of it is known once it is there.
        self.sample = job.get("sample")
        self.directory = None

    @property
    def in_full(self):
        """Nothing can be said of a part of it."""
        return self.job["kind"] in IN_FULL

    @property
    def suits_a_bare_client(self):
        """It is a matter of ranges, and of nothing that a file system adds."""
        return self.job["kind"] == "random" and not self.job["mapped"]

    @property
    def more_is_better(self):
        return self.unit.endswith("/s")

    def value(self, result):
        """The figure, in the unit, from what the reader says."""
        seconds = max(result["seconds"], 1e-6)
        if self.unit == "MB/s":
            return result["bytes"] / 1e6 / seconds
        if self.unit == "ms":
            return 1000 * result["p50"]
        if self.unit == "s":
            return seconds
        return result["operations"] / seconds


def size(count):
    return f"{count // GIB} GiB" if count % GIB == 0 else f"{count // MIB} MiB"


def streams(name, count, length, total, **more):
    keys = [f"streams/{index:08}.bin" for index in range(count)] if count > 1 else ["one/stream.bin"]
    spec = f"streams:{count}:{total}" if count > 1 else f"one/stream.bin:1:{total}"
    part = "" if length == total else "first "
    title = f"one stream, {size(length)}" if count == 1 else f"{count} streams, {part}{size(length)} of each"
    job = {"kind": "stream", "share": "keys", "keys": keys, "workers": count, "length": length}
    return Work(name, title, "MB/s", [spec], job, **more)


def beside_open(name, count):
    """As xarray.open_mfdataset leaves it: all files open, of which the headers were read, and one that is read."""
    keys = [f"beside/{index:08}.bin" for index in range(count)]
    job = {"kind": "stream", "share": "keys", "keys": ["one/stream.bin"], "workers": 1, "length": GIB, "beside": keys}
    objects = [f"one/stream.bin:1:{GIB}", f"beside:{count}:{20 * MIB}"]
    return Work(name, f"one stream, 1 GiB, beside {count} open files", "MB/s", objects, dict(job, patience=3))


def of_one(name, title, share, workers, length, **more):
    """Streams of one object: of all of it, or of a part to each."""
    job = {"kind": "stream", "share": share, "keys": ["one/shared.bin"], "workers": workers, "length": length}
    return Work(name, title, "MB/s", [f"one/shared.bin:1:{length}"], dict(job, **more))


def at_random(name, block, workers, count, mapped=False):
    job = {"kind": "random", "keys": ["one/random.bin"], "workers": workers, "length": GIB, "mapped": mapped}
    job.update(block=block, count=count, seed=SEED)
    who = f"{workers} {'process' if mapped else 'thread'}"
    who += "" if workers == 1 else "es" if mapped else "s"
    title = f"random page faults in a mapping, {who}" if mapped else f"random {block // KIB} KiB, {who}"
    return Work(name, title, "reads/s", [f"one/random.bin:1:{GIB}"], job)


def pieces(name, title, offsets_and_lengths, unit="MB/s", kind="pieces"):
    job = {"kind": kind, "keys": ["one/pieces.bin"], "workers": 1, "pieces": offsets_and_lengths}
    return Work(name, title, unit, [f"one/pieces.bin:1:{GIB}"], job)


def tiles():
    """Windows of 4 x 4 tiles of an image: those of a row lie close together, the rows 6 MiB apart."""
    numbers = random.Random(SEED)
    windows = [numbers.randrange(900) * MIB for _ in range(10)]
    rows = [window + row * 6 * MIB for window in windows for row in range(4)]
    return [(row + nth * 200 * KIB, 190 * KIB) for row in rows for nth in range(4)]


def columns():
    """A footer, and 4 column chunks of each of 16 row groups."""
    groups = [group * 64 * MIB for group in range(16)]
    chunks = [group + column * MIB for group in groups for column in (3, 7, 20, 40)]
    footer = [(GIB - 8, 8), (GIB - 60 * KIB, 60 * KIB)]
    return footer + [(chunk + nth * MIB, MIB) for chunk in chunks for nth in range(4)]


def backward():
    return [(GIB - (nth + 1) * MIB, MIB) for nth in range(200)]


def headers():
    """What `tar -t` reads of an archive of files of 1 to 5 MiB."""
    numbers = random.Random(SEED)
    offset, read = 0, []
    while offset < 900 * MIB:
        read.append((offset, 10 * KIB))
        offset += numbers.randrange(MIB, 5 * MIB) // 512 * 512
    return read


def points():
    """A list of stations in order, 4 MB apart on average, 50 KB of each: now and then many times as much lies between."""
    numbers = random.Random(SEED)
    return [(offset, 50_000) for offset in sorted(numbers.randrange(GIB - 50_000) for _ in range(270))]


def winds():
    """A row of u and one of v, each from an array of its own, step by step."""
    steps = [((step * 3_000_001, 64 * KIB), (512 * MIB + step * 5_000_001, 128 * KIB)) for step in range(100)]
    return [row for rows in steps for row in rows]


def box():
    """400 points of each of 100 lines of 5,003 points, of each of 10 times: no line begins with a page."""
    lines = [time * 720 + line for time in range(10) for line in range(100)]
    return [(40 * MIB + line * 5_003 * 8, 400 * 8) for line in lines]


def after_jumps():
    """4 MiB here and there, and then all of it in order."""
    numbers = random.Random(SEED)
    jumps = [numbers.randrange(950) * MIB for _ in range(60)]
    return [(jump + nth * MIB, MIB) for jump in jumps for nth in range(4)] + [(nth * MIB, MIB) for nth in range(1000)]


def anew(name, count):
    """As a loop in the shell reads, which runs a program for each time step."""
    slices = [(3 * MIB + step * 10 * MIB, 600 * KIB) for step in range(count)]
    return pieces(name, f"{count} slices of 600 KiB, the file opened for each", slices, "reads/s", "anew")


def sample(name, title, job=None):
    """A job of benchlib/granule.py on the file that its name begins with."""
    return Work(name, title, "s", [], {"kind": "sample", "sample": name.partition("-")[0], "job": job or name})


def open_files(name, count, workers):
    keys = [f"open/{index:08}.bin" for index in range(count)]
    # Opening does not count, but takes some systems long.
    job = {"kind": "together", "keys": keys, "workers": workers, "length": MIB, "patience": 3}
    title = f"{count:,} open files, first MiB of all at once"
    return Work(name, title, "MB/s", [f"open:{count}:{16 * MIB}"], job)


def whole_files(name, count, each, back=False):
    keys = [f"files/{index:08}.bin" for index in range(count)]
    job = {"kind": "stream", "share": "keys", "keys": keys[::-1] if back else keys, "workers": 1, "length": each}
    how = "the last one first" if back else "in turn"
    return Work(name, f"{count} files of {size(each)}, {how}", "MB/s", [f"files:{count}:{each}"], job)


def small(name, count, workers):
    keys = [f"small/{index:08}.bin" for index in range(count)]
    job = {"kind": "files", "keys": keys, "workers": workers, "length": 100 * KIB}
    how = "in turn" if workers == 1 else f"by {workers} processes"
    return Work(name, f"{count:,} files of 100 KiB, {how}", "files/s", [f"small:{count}:{100 * KIB}"], job)


def each_fourth(name, count):
    """One hour of the four that a directory has of each day."""
    keys = [f"hours/{index:08}.bin" for index in range(0, 4 * count, 4)]
    job = {"kind": "files", "keys": keys, "workers": 1, "length": 300 * KIB}
    title = f"each fourth of {4 * count} files of 300 KiB"
    return Work(name, title, "files/s", [f"hours:{4 * count}:{300 * KIB}"], job)


def chunks(name, count):
    """A Zarr array, whose chunks have directories of their own, by their names."""
    keys = [f"chunks/{index // 4:06}/{index % 4:06}.bin" for index in range(count)]
    job = {"kind": "files", "keys": keys, "workers": 1, "length": 300 * KIB}
    title = f"{count} chunks of 300 KiB, four to a directory"
    return Work(name, title, "files/s", [f"chunks:{count}:{300 * KIB}:4"], job)


def series(name, count, workers):
    """The same box of each day: a header, and 40 KiB of each of 12 levels."""
    keys = [f"days/{index:08}.bin" for index in range(count)]
    box = [(0, 8 * KIB)] + [(3 * MIB + level * 1_234_567, 40 * KIB) for level in range(12)]
    job = {"kind": "boxes", "keys": keys, "workers": workers, "pieces": box}
    how = "in turn" if workers == 1 else f"by {workers} processes"
    title = f"a box of each of {count} files of 20 MiB, {how}"
    return Work(name, title, "reads/s", [f"days:{count}:{20 * MIB}"], job)


def tails(name, count):
    """The tables of contents of Parquet or zip files."""
    keys = [f"parts/{index:08}.bin" for index in range(count)]
    job = {"kind": "boxes", "keys": keys, "workers": 1, "pieces": [(20 * MIB - 64 * KIB, 64 * KIB)]}
    title = f"last 64 KiB of each of {count} files of 20 MiB"
    return Work(name, title, "reads/s", [f"parts:{count}:{20 * MIB}"], job)


def cold(name, directory, objects, each, count):
    """First bytes of files far apart, by name, with nothing listed before."""
    step = objects // count
    chosen = [index * step + step // 2 for index in range(count)]
    random.Random(SEED).shuffle(chosen)
    job = {"kind": "files", "keys": [f"{directory}/{index:08}.bin" for index in chosen], "workers": 1}
    job.update(length=4 * KIB)
    title = f"cold first 4 KiB of {count}, in a directory of {objects:,}, median"
    return Work(name, title, "ms", [f"{directory}:{objects}:{each}"], job)


def names(name, title, spec, command, count, **more):
    return Work(name, title, "s", [spec], {"kind": "command", "command": command, "names": count, **more})


def ls(name, count):
    return names(name, f"ls -l of {count:,}", f"names:{count}:1234", ["ls", "-l", "names"], count, size=1234)


def works(quick):
    """All works, in the order of the table."""
    one = 512 * MIB if quick else 2 * GIB
    walked = 100 if quick else 1_000
    far_apart = 20_000 if quick else 100_000
    twice = 256 * MIB if quick else one
    shared = 512 * MIB if quick else 4 * GIB
    again = streams("again", 1, twice, twice)
    listing = ls("ls", 10_000 if quick else 100_000)
    return [
        streams("stream", 1, one, one),
        streams("streams-4", 4, (128 if quick else 512) * MIB, GIB),
        streams("streams-16", 16, (32 if quick else 128) * MIB, GIB),
        Work("again", f"the same {size(twice)} read again", "MB/s", again.objects, again.job, before=again.job),
        at_random("random-64k-1", 64 * KIB, 1, 400),
        at_random("random-64k-16", 64 * KIB, 16, 8_000),
        at_random("random-4k-16", 4 * KIB, 16, 32_000),
        at_random("mmap-faults-1", 4 * KIB, 1, 400, mapped=True),
        at_random("mmap-faults-16", 4 * KIB, 16, 1_600, mapped=True),
        of_one("stream-64k", "one stream, 1 GiB by 64 KiB", "whole", 1, GIB, piece=64 * KIB),
        beside_open("beside-open", 128),
        whole_files("files-20m", 60, 20 * MIB),
        whole_files("files-back", 60, 5 * MIB, back=True),
        pieces("tiles", "10 windows of 4 x 4 tiles of 190 KiB", tiles()),
        pieces("columns", "Parquet, 4 of the columns of 16 row groups", columns()),
        pieces("backward", "200 MiB backward, by 1 MiB", backward()),
        pieces("headers", "headers of an archive's members, as tar -t", headers(), "reads/s"),
        pieces("points", "270 points in order, 4 MB apart on average", points(), "reads/s"),
        pieces("box", "400 points of each of 100 lines, of each of 10 times", box(), "reads/s"),
        pieces("winds", "rows of two arrays in turn", winds(), "reads/s"),
        each_fourth("fourth", 100),
        chunks("chunks", 400),
        series("series", 100, 1),
        series("series-16", 320, 16),
        tails("tails", 100),
        anew("anew", 100),
        pieces("after-jumps", "60 x 4 MiB here and there, then 1,000 MiB in order", after_jumps()),
        of_one("strided", "1 MiB of each 17 MiB, one stream", "whole", 1, shared, skip=16 * MIB),
        of_one("same-object-64", f"64 processes, each all of one {size(shared)}", "whole", 64, shared, patience=3),
        of_one("parts-64", f"64 processes, each its part of one {size(shared)}", "parts", 64, shared),
        open_files("open-1000", 1_000, 50),
        cold("cold-100000", "far", far_apart, MIB, 16 if quick else 50),
        cold("cold-64", "large", 64, GIB, 16 if quick else 32),
        small("small-turn", 400, 1),
        small("small-16", 1_000, 16),
        sample("hdf5-attributes", "HDF5, all attributes of 30 datasets of 180", "hdf5-attributes-30")
        if quick
        else sample("hdf5-attributes", "HDF5, all attributes of 180 datasets"),
        sample("hdf5-slices", "HDF5, 9 slices of datasets far apart"),
        sample("netcdf-box", "NetCDF-4, 500 x 1,000 of 162 million points"),
        sample("netcdf-variable", "NetCDF-4, all of one variable"),
        sample("cog-overview", "gdal_translate of a COG's overview"),
        names(
            "find",
            f"find over {walked:,} directories of 20",
            f"tree:{walked * 20}:1234:20",
            ["find", "tree", "-type", "f"],
            walked * 20,
        ),
        listing,
        Work("ls-again", f"{listing.title} again", "s", listing.objects, listing.job, before=listing.job),
        ls("ls-million", 1_000_000),
    ]


# Left out by --quick: 3 minutes are short, and others say nearly the same, or take longer.
NOT_QUICK = ("streams-4", "random-64k-1", "mmap-faults-1", "mmap-faults-16", "strided", "same-object-64", "parts-64")
NOT_QUICK += ("stream-64k", "files-20m", "tiles", "columns", "backward", "headers", "winds", "fourth", "series", "series-16")
NOT_QUICK += ("points", "files-back", "tails", "anew", "after-jumps", "beside-open", "box", "chunks")
NOT_QUICK += ("open-1000", "hdf5-slices", "netcdf-box", "netcdf-variable", "cog-overview", "ls-again")
# Only where --works names it: peers take half an hour.
ONLY_NAMED = ("ls-million",)
