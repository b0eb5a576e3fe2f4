"""The wheel has every sub-package, the weights and the page."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_wheel_is_complete(tmp_path):
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    for package in ("str_app", "models", "datasets", "serve"):
        shutil.copytree(ROOT / package, source / package, ignore=ignore)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    files = (path for package in ("str_app", "models", "datasets", "serve") for path in (source / package).rglob("*"))
    wanted = {str(path.relative_to(source)) for path in files if path.is_file()}
    assert "serve/static/index.html" in wanted
    assert wanted <= inside, sorted(wanted - inside)
    assert "tests/__init__.py" not in inside
