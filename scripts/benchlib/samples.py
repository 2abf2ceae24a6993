"""Files as real libraries write them, made once and kept beside the programs of the benchmark."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from benchlib import granule
from benchlib.systems import CACHE, apt_install, make_venv, quietly

LIBRARIES = ("h5py", "netCDF4", "numpy")
MAKING_SECONDS = 600
VENV = CACHE / "samples-venv"
PYTHON = VENV / "bin" / "python"

# Sample: its key in the bucket, and whether GDAL is needed.
SAMPLES = {
    "hdf5": ("granules/heights.h5", False),
    "netcdf": ("granules/sst.nc", False),
    "cog": ("scenes/scene.tif", True),
}


class Missing(Exception):
    """Why a sample cannot be had."""


class Sample:
    """A directory that the mock serves, with the one file in it, and what the jobs find there."""

    def __init__(self, name):
        self.name = name
        self.key, self.needs_gdal = SAMPLES[name]
        self.home = CACHE / "samples" / f"{name}-{granule.EDITION}"
        self.directory = self.home / "bucket"
        self.digests = self.home / "digests.json"

    def job(self, name):
        """What a job needs to know, but for the path that it reads."""
        digest = json.loads(self.digests.read_text())[name]
        return {"key": self.key, "original": str(self.directory / self.key), "digest": digest}

    def make(self, say):
        say(f"Making {self.key} ...")
        for old in self.home.parent.glob(f"{self.name}-*"):
            shutil.rmtree(old)
        path = self.directory / self.key
        path.parent.mkdir(parents=True)
        problem = quietly([str(PYTHON), granule.__file__, "make", self.name, str(path)], MAKING_SECONDS)
        if problem:
            raise Missing(problem)
        digests = {}
        for job in granule.JOBS:
            if job.startswith(self.name):
                said = run({"job": job, "path": str(path)}, self.home)
                if "error" in said:
                    raise Missing(said["error"])
                digests[job] = said["digest"]
        # Written last: it stands for a file that is whole.
        self.digests.write_text(json.dumps(digests) + "\n")


def environment(temporary):
    """The owner's settings of GDAL and HDF5 have no part in this."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GDAL_", "CPL_", "HDF5_"))}
    return dict(kept, TMPDIR=str(temporary))


def command(job):
    return [str(PYTHON), granule.__file__, "read", json.dumps(job)]


def run(job, temporary):
    done = subprocess.run(command(job), capture_output=True, stdin=subprocess.DEVNULL, env=environment(temporary))
    return json.loads(done.stdout) if done.stdout else {"error": f"{job['job']} died"}


def libraries(install, say):
    if quietly([str(PYTHON), "-c", f"import {', '.join(LIBRARIES)}"]) is None:
        return
    if not install:
        raise Missing(f"{', '.join(LIBRARIES)} are not installed")
    say(f"Installing {', '.join(LIBRARIES)} (of PyPI) ...")
    problem = make_venv(VENV) or quietly([str(VENV / "bin/pip"), "install", "-q", *LIBRARIES])
    if problem:
        raise Missing(f"{', '.join(LIBRARIES)} could not be installed: {problem}")


def gdal(install, say):
    if shutil.which("gdal_translate"):
        return
    if not install or os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Missing("gdal_translate is not here, and only root can install it")
    say("Installing gdal-bin ...")
    problem = apt_install("gdal-bin")
    if problem:
        raise Missing(f"gdal-bin could not be installed: {problem}")


def prepare(names, install, say):
    """The samples of these names, made if they are not there yet; or, in place of one, why it cannot be had."""
    found = {}
    for name in names:
        sample = found[name] = Sample(name)
        try:
            libraries(install, say)
            if sample.needs_gdal:
                gdal(install, say)
            if not sample.digests.exists():
                sample.make(say)
        except (Missing, OSError) as problem:
            found[name] = str(problem)
    return found
