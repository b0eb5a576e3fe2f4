"""Finds out whether the generic package names `models` and `datasets` are this application's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from str_app.errors import StrAppError

_MARKERS = {"models": "charset.py", "datasets": "sample.py"}


def check_packages() -> None:
    """Raise if another installed package (say Hugging Face's `datasets`) hides one of ours.

    Raises:
        StrAppError: naming the package, where Python finds it and what to do.
    """
    home = Path(__file__).resolve().parent.parent
    for name, marker in _MARKERS.items():
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # a module without a spec was put into sys.modules by hand
            spec = None
        places = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or []]
        if home / name in places[:1] and (home / name / marker).is_file():
            continue
        found = str(places[0]) if places else "nowhere"
        raise StrAppError(
            f"the package `{name}` is found at {found}, but this application's own is {home / name}: "
            f"run from the checkout, or in an environment where no other `{name}` is installed (pip uninstall {name})"
        )
