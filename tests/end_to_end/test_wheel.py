"""The wheel has every sub-package, the weights and the page."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("models", "datasets", "serve")


def test_wheel_is_complete(tmp_path):
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("str_app", *ROOMS):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore, symlinks=True)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    wanted = {f"str_app/{path.relative_to(source)}" for room in ROOMS for path in (source / room).rglob("*")}
    wanted |= {str(path.relative_to(source)) for path in (source / "str_app").rglob("*")}
    wanted = {path for path in wanted if (source / path).is_file()}
    assert {"str_app/serve/static/index.html", "str_app/reader.py", "str_app/py.typed"} <= wanted
    assert wanted <= inside, sorted(wanted - inside)
    assert {path.split("/")[0] for path in inside} == {"str_app", "str_app-0.1.0.dist-info"}
