"""What is installed: the wheel has everything, takes no import name but `str_app`, and lives beside other packages."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("models", "datasets", "serve")
TUTORIALS = ("examples", "samples", "scripts")
FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


def run(command, cwd, timeout=300):
    """Output of `command`, whose Python sees nothing of this checkout by PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    completed = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert completed.returncode == 0, f"{command}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


def build(kind, source, out):
    """Build a "wheel" or an "sdist" of the tree at `source`; return its path."""
    out.mkdir()
    run([sys.executable, "-c", BUILD, f"build_{kind}", out], source)
    (archive,) = out.iterdir()
    return archive


def contents(wheel):
    """Path → bytes of each file in the wheel but RECORD, which follows from the others."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what is packaged, so that nothing is built in the checkout."""
    source = tmp_path_factory.mktemp("package") / "source"
    for folder in ("str_app", *LINKED, *TUTORIALS):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    for file in FILES:
        shutil.copy(ROOT / file, source)
    return source


@pytest.fixture(scope="module")
def wheel(source):
    return build("wheel", source, source.parent / "wheel")


def test_the_wheel_has_every_file_once(source, wheel):
    """Sub-packages, weights, sources of the kernels, the page and `py.typed`, each below `str_app`."""
    packaged = {path.relative_to(source): f"str_app/{path.relative_to(source)}" for path in files(source, LINKED)}
    packaged |= {path.relative_to(source): str(path.relative_to(source)) for path in files(source, ["str_app"])}
    inside = set(contents(wheel))
    assert set(packaged.values()) == {name for name in inside if ".dist-info/" not in name}
    assert {"str_app/py.typed", "str_app/serve/static/index.html", "str_app/models/weights/small.safetensors"} <= inside


def files(source, folders):
    """Files below `folders`; links to folders are not followed (Path.rglob)."""
    return [path for folder in folders for path in (source / folder).rglob("*") if path.is_file()]


def test_the_wheel_installs_no_import_name_but_its_own(wheel):
    top = {name.split("/")[0] for name in contents(wheel)}
    assert top == {"str_app", "str_app-0.1.0.dist-info"}


def test_a_wheel_built_from_the_sdist_is_the_same(source, wheel):
    sdist = build("sdist", source, source.parent / "sdist")
    unpacked = source.parent / "unpacked"
    shutil.unpack_archive(sdist, unpacked, filter="data")
    (tree,) = unpacked.iterdir()
    assert not any(path.is_symlink() for path in tree.rglob("*"))
    assert {str(path.relative_to(tree)) for path in files(tree, TUTORIALS)} == {
        str(path.relative_to(source)) for path in files(source, TUTORIALS)
    }
    assert contents(build("wheel", tree, source.parent / "wheel-of-sdist")) == contents(wheel)


DATASETS_WORKS = """
import json, datasets
rows = datasets.Dataset.from_dict({"text": ["STOP", "EXIT"]}).filter(lambda row: row["text"] == "EXIT")
print(json.dumps([rows["text"][0], datasets.__file__]))
"""
WHOSE_FILES = """
import json
from importlib.metadata import distribution
print(json.dumps([[str(path) for path in distribution(name).files] for name in ("str-app", "datasets")]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["str-app", "datasets"])
def test_hugging_face_datasets_and_the_wheel_work_side_by_side(first, wheel, tmp_path):
    """Both in one fresh environment, installed in either order: both import and work. Needs pip's package index."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).strip())
    # torch and the other dependencies of ours, some gigabytes, are those of the environment that runs the tests. A
    # folder named in a .pth file has its own .pth files ignored, so its editable str_app is not visible.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = {
        "str-app": [python, "-m", "pip", "install", "--no-deps", "--ignore-installed", wheel],
        "datasets": [python, "-m", "pip", "install", "datasets"],
    }
    for name in sorted(install, key=lambda name: name != first):
        run(install[name], tmp_path, timeout=900)

    ours, theirs = json.loads(run([python, "-c", WHOSE_FILES], tmp_path))
    assert not set(ours) & set(theirs)
    text, path = json.loads(run([python, "-c", DATASETS_WORKS], tmp_path).splitlines()[-1])
    assert text == "EXIT"
    assert Path(path).is_relative_to(site)
    lines = run([environment / "bin" / "str-app", "recognize", ROOT / "samples" / "images"], tmp_path).splitlines()
    assert len(lines) == 10
    assert all(len(line.split("\t")) == 3 for line in lines)
    run([python, "-c", "import str_app.datasets.lexicon, str_app.models.presets, str_app.serve"], tmp_path)
