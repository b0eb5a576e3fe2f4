"""`python -m str_app.models.kernels.native`: compile the recurrent loops and convolutions for this processor.

`--every` compiles them for every processor of this architecture: for an image that is to run on other machines.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from str_app.models.kernels.native.library import (
    PROCESSORS,
    SOURCES,
    Library,
    compiler_options,
    key,
    path,
    this_processor,
)


def build(processor: str) -> Path:
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
    place = path(processor)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        built = Path(folder) / place.name
        definition = f'-DNATIVE_KEY="{key(processor)}"'
        command = [compiler, *compiler_options(processor), definition, str(SOURCES[0]), "-o", str(built)]
        subprocess.run(command, check=True)
        Library(built, key(processor))
        built.replace(place)  # at once: nobody loads half a library
    return place


def main(arguments: list[str] | None = None) -> None:
    """Print where what was built lies."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m str_app.models.kernels.native", description=__doc__.replace("`", ""))
    parser.add_argument("--every", action="store_true", help="for every processor of this architecture")
    every = parser.parse_args(arguments).every
    processors = list(PROCESSORS) if platform.machine() in ("x86_64", "AMD64") else ["DEFAULT"]
    try:
        for processor in processors if every else [this_processor()]:
            print(build(processor), flush=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"python -m str_app.models.kernels.native: {error}")


if __name__ == "__main__":
    main()
