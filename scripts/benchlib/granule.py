"""Real files of the benchmark: how they are made, and how programs of science read them.

    python granule.py make KIND PATH      writes the file
    python granule.py read JSON           does one of the jobs, and says in a line of JSON how it went

It runs in an environment that has h5py, netCDF4 and numpy (benchlib/samples.py), each job in a process of its own. What
a job has read comes back as a digest, to be compared with that of the same job on the local original; `bytes` are those
that it asked the file system for.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

# Goes up when the files become others: those of older editions are made anew.
EDITION = 1

SEED = 20240701

# HDF5, as altimeter granules are: beams with groups of short variables, each with a handful of attributes.
BEAMS = ("gt1l", "gt1r", "gt2l", "gt2r", "gt3l", "gt3r")
GROUPS = ("heights", "land_segments", "geolocation")
VARIABLES = 10
VALUES = 265_000
CHUNK = 10_000

# NetCDF-4, as a global sea surface temperature is: 162 million points, in the chunks of MUR.
LATITUDES, LONGITUDES = 9_000, 18_000
TILE = (1_023, 2_047)

# COG, as a scene of Sentinel-2 in three colours; made a strip of lines at a time.
BANDS, PIXELS, STRIP = 3, 10_980, 1_098


def make_hdf5(path):
    """Each dataset is created, described and filled before the next, so its metadata lies beside its chunks, and that of
    all of them all over the file: the library's own layout."""
    import h5py
    import numpy

    numbers = numpy.random.default_rng(SEED)
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "photon heights of no orbit at all"
        for beam in BEAMS:
            for group in GROUPS:
                for index in range(VARIABLES):
                    # Heights to the millimetre, of which deflate finds about a quarter to save.
                    walk = numpy.cumsum(numbers.normal(0, 2, VALUES)) + numbers.normal(0, 300, VALUES)
                    name = f"{beam}/{group}/variable_{index}"
                    data = file.create_dataset(
                        name,
                        shape=(VALUES,),
                        dtype="f8",
                        chunks=(CHUNK,),
                        compression="gzip",
                        compression_opts=1,
                        shuffle=True,
                        fillvalue=-9999.0,
                    )
                    data.attrs["units"] = "meters"
                    data.attrs["long_name"] = f"variable {index} of {group} along beam {beam}"
                    data.attrs["description"] = f"What {name} holds, in a sentence or two, as data dictionaries have. " * 3
                    data.attrs["source"] = "section 4.2 of the theoretical basis document"
                    data.attrs["coordinates"] = "delta_time latitude longitude"
                    data.attrs["valid_min"] = -500.0 - index
                    data.attrs["valid_max"] = 9_000.0 + index
                    data.attrs["flag_values"] = numpy.arange(8, dtype="i4")
                    data[...] = numpy.round(walk, 3)


def make_netcdf(path):
    import netCDF4
    import numpy

    numbers = numpy.random.default_rng(SEED)
    with netCDF4.Dataset(path, "w") as file:
        file.title = "sea surface temperature of no ocean at all"
        for name, count, first, last in (("lat", LATITUDES, -90, 90), ("lon", LONGITUDES, -180, 180)):
            file.createDimension(name, count)
            axis = file.createVariable(name, "f4", (name,))
            axis.units = "degrees_north" if name == "lat" else "degrees_east"
            axis[:] = numpy.linspace(first, last, count, dtype="f4")
        # So many of the values' bits are noise.
        for name, kind, noise in (("analysed_sst", "i2", 6), ("analysis_error", "i2", 3), ("mask", "i1", 1)):
            variable = file.createVariable(
                name, kind, ("lat", "lon"), zlib=True, complevel=1, shuffle=True, chunksizes=TILE, fill_value=-128
            )
            variable.long_name = name.replace("_", " ")
            variable.valid_min, variable.valid_max = (-32767, 32767) if kind == "i2" else (0, 31)
            variable.set_auto_maskandscale(False)
            for top in range(0, LATITUDES, TILE[0]):
                rows = min(TILE[0], LATITUDES - top)
                values = numbers.integers(0, 1 << noise, (rows, LONGITUDES), dtype="i2")
                if kind == "i2":
                    latitude = numpy.arange(top, top + rows)[:, None] / LATITUDES * numpy.pi
                    longitude = numpy.arange(LONGITUDES)[None, :] / LONGITUDES * 40 * numpy.pi
                    values += (numpy.sin(latitude) * 3000 + numpy.sin(longitude) * 200).astype("i2")
                variable[top : top + rows, :] = values.astype(kind)


def make_cog(path):
    """Three bands of bytes, one after another, which gdal_translate makes a COG of."""
    import numpy

    numbers = numpy.random.default_rng(SEED)
    raw, header = Path(f"{path}.raw"), Path(f"{path}.vrt")
    with raw.open("wb") as file:
        for band in range(BANDS):
            across = numpy.sin(numpy.arange(PIXELS) / (300 + 50 * band))[None, :] * 60
            for top in range(0, PIXELS, STRIP):
                down = numpy.sin(numpy.arange(top, top + STRIP) / 411)[:, None] * 40
                values = 110 + down + across + numbers.integers(0, 4, (STRIP, PIXELS))
                file.write(values.astype("u1").tobytes())
    bands = "".join(
        f"""<VRTRasterBand dataType="Byte" band="{band + 1}" subClass="VRTRawRasterBand">
        <SourceFilename relativeToVRT="1">{raw.name}</SourceFilename><ImageOffset>{band * PIXELS**2}</ImageOffset>
        <PixelOffset>1</PixelOffset><LineOffset>{PIXELS}</LineOffset></VRTRasterBand>"""
        for band in range(BANDS)
    )
    header.write_text(
        f"""<VRTDataset rasterXSize="{PIXELS}" rasterYSize="{PIXELS}"><SRS>EPSG:32632</SRS>
        <GeoTransform>600000, 10, 0, 5300040, 0, -10</GeoTransform>{bands}</VRTDataset>"""
    )
    options = ["-co", "COMPRESS=DEFLATE", "-co", "LEVEL=1", "-co", "NUM_THREADS=ALL_CPUS"]
    subprocess.run(["gdal_translate", "-q", "-of", "COG", *options, header, path], check=True)
    raw.unlink()
    header.unlink()


# The jobs: the seconds that each took, and the bytes of what it found, which are put together later.


def hdf5_attributes(group):
    def job(path):
        import h5py

        begin = time.monotonic()
        found = []
        with h5py.File(path, "r") as file:
            file[group].visititems(lambda name, item: found.append((name, dict(item.attrs))))
        seconds = time.monotonic() - begin
        lines = (
            f"{name}\t{key}\t{value if isinstance(value, str) else value.tolist()}\n".encode()
            for name, attributes in found
            for key, value in attributes.items()
        )
        return seconds, lines

    return job


def hdf5_slices(path):
    """Far apart, of a chunk, of some, and not along the chunks."""
    import h5py

    parts = (slice(0, CHUNK), slice(123_456, 151_515), slice(100_000, 130_000))
    begin = time.monotonic()
    found = []
    with h5py.File(path, "r") as file:
        for index in range(9):
            beam, group = BEAMS[index * 5 % 6], GROUPS[index % 3]
            found.append(file[f"{beam}/{group}/variable_{index}"][parts[index // 3]])
    return time.monotonic() - begin, found


def netcdf(part):
    def job(path):
        import netCDF4

        begin = time.monotonic()
        with netCDF4.Dataset(path) as file:
            variable = file["analysed_sst"]
            # Scaling and masking would cost the reader more than the reading.
            variable.set_auto_maskandscale(False)
            values = variable[part]
        return time.monotonic() - begin, [values]

    return job


def cog_overview(path):
    """A quick look of a tenth of the size: gdal_translate takes it from the overview of an eighth."""
    output = Path(os.environ["TMPDIR"]) / "quicklook.tif"
    command = ["gdal_translate", "-q", "-outsize", "10%", "10%", path, output]
    begin = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - begin, (file.read_bytes() for file in [output])


MAKERS = {"hdf5": make_hdf5, "netcdf": make_netcdf, "cog": make_cog}

JOBS = {
    "hdf5-attributes": hdf5_attributes("/"),
    "hdf5-attributes-30": hdf5_attributes("/gt2r"),
    "hdf5-slices": hdf5_slices,
    # Over a corner where four chunks meet.
    "netcdf-box": netcdf((slice(3_900, 4_400), slice(9_800, 10_800))),
    "netcdf-variable": netcdf(slice(None)),
    "cog-overview": cog_overview,
}


def asked():
    """Bytes that this process has asked for by read(2) and its kin, with its children that have ended."""
    with open("/proc/self/io", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


def warm(job):
    """What a program loads before it looks at its file is no matter of the mount. Returns the bytes of that, if the job
    itself loads it again."""
    if job["job"].startswith("hdf5"):
        __import__("h5py")
    elif job["job"].startswith("netcdf"):
        __import__("netCDF4")
    else:
        if "original" in job:
            cog_overview(job["original"])
        before = asked()
        subprocess.run(["gdal_translate", "--version"], stdout=subprocess.DEVNULL, check=True)
        return asked() - before
    return 0


def read(job):
    loaded = warm(job)
    before = asked()
    seconds, found = JOBS[job["job"]](job["path"])
    count = asked() - before - loaded
    digest = hashlib.blake2b(digest_size=16)
    for piece in found:
        digest.update(piece)
    if job.get("digest", digest.hexdigest()) != digest.hexdigest():
        return {"error": f"{job['job']}: not what the original holds"}
    return {"seconds": seconds, "bytes": count, "operations": 1, "stopped": False, "digest": digest.hexdigest()}


def main():
    if sys.argv[1] == "make":
        MAKERS[sys.argv[2]](sys.argv[3])
        return
    try:
        print(json.dumps(read(json.loads(sys.argv[2]))))
    except Exception as error:  # noqa: BLE001 (whatever a library throws is the cell's failure)
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))


if __name__ == "__main__":
    main()
