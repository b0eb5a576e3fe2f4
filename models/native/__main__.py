"""`python -m models.native`: compile the recurrent layers' loops for this machine's processor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from models.native.library import SOURCES, Library, compiler_options, key, path


def build() -> Path:
    """Compile, check that the library loads, and put it in its place.

    The compiler is CXX, else c++; what it says goes to the standard error.

    Raises:
        FileNotFoundError: there is none.
        subprocess.CalledProcessError: it failed.
        OSError: the library does not load.
    """
    name = os.environ.get("CXX", "c++")
    compiler = shutil.which(name)
    if compiler is None:
        raise FileNotFoundError(f"no C++ compiler {name!r}: install g++, or name one in CXX")
    place = path()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        built = Path(folder) / place.name
        command = [compiler, *compiler_options(), f'-DNATIVE_KEY="{key()}"', str(SOURCES[0]), "-o", str(built)]
        subprocess.run(command, check=True)
        Library(built)
        built.replace(place)  # at once: nobody loads half a library
    return place


if __name__ == "__main__":
    try:
        print(build())
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"python -m models.native: {error}")
