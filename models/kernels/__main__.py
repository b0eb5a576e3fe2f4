"""`python -m str_app.models.kernels`: compile the C++ functions (recurrent loops, convolutions) for this processor.

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

from str_app.models.kernels.library import (
    PROCESSORS,
    SOURCES,
    Library,
    compiler_options,
    key,
    path,
    this_processor,
)

COMMAND = "python -m str_app.models.kernels"


def build(processor: str) -> Path:
    """Compile the library for a processor of PROCESSORS, check that it loads, and move it to `library.path`.

    The compiler is CXX, by default c++; its messages go to standard error.

    Raises:
        FileNotFoundError: no compiler.
        subprocess.CalledProcessError: the compiler failed.
        OSError: the library does not load.
    """
    name = os.environ.get("CXX", "c++")
    compiler = shutil.which(name)
    if compiler is None:
        raise FileNotFoundError(f"no C++ compiler {name!r}: install g++, or name one in CXX")
    target = path(processor)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        definition = f'-DLIBRARY_KEY="{key(processor)}"'
        command = [compiler, *compiler_options(processor), definition, str(SOURCES[0]), "-o", str(built)]
        subprocess.run(command, check=True)
        Library(built, key(processor))
        built.replace(target)  # atomic: no process loads half a library
    return target


def main(arguments: list[str] | None = None) -> None:
    """Print the path of each library that was built."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(COMMAND, description=__doc__.replace("`", ""))
    parser.add_argument("--every", action="store_true", help="for every processor of this architecture")
    every = parser.parse_args(arguments).every
    processors = list(PROCESSORS) if platform.machine() in ("x86_64", "AMD64") else ["DEFAULT"]
    try:
        for processor in processors if every else [this_processor()]:
            print(build(processor), flush=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{COMMAND}: {error}")


if __name__ == "__main__":
    main()
