"""The deployment files, parsed, and the server's defaults that they must fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from str_app.serve.operations.metrics import Metrics
from str_app.serve.settings import Settings

DEPLOY = Path("deploy")
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}
# The server's settings, and where the compiled kernels lie.
VARIABLES = {f"STR_APP_{name.upper()}" for name in Settings.model_fields} | {"STR_APP_NATIVE"}
# From SIGTERM: readiness is 503, then uploads and readings that have begun may take their time.
LONGEST_STOP_S = DEFAULTS["drain_delay_s"] + DEFAULTS["upload_timeout_s"] + DEFAULTS["deadline_s"]


class _Loader(yaml.SafeLoader):
    """YAML with compose's `!reset`, which says that an inherited value does not count."""


_Loader.add_constructor("!reset", lambda loader, node: None)


def documents(path: Path) -> list[dict[str, Any]]:
    """All documents of a YAML file."""
    return [document for document in yaml.load_all(path.read_text(), _Loader) if document is not None]


def document(path: Path) -> dict[str, Any]:
    """The only document of a YAML file."""
    (only,) = documents(path)
    return only


def directives(conf: str) -> dict[str, list[str]]:
    """nginx's directives by name, each with the rest of its line."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^\s*([a-z_]+)\s+([^;{]*)[;{]", conf, re.MULTILINE):
        found.setdefault(name, []).append(value.strip())
    return found


def seconds(text: str) -> float:
    """Of a time like 500ms, 15s or 1m."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 1e-3, "s": 1, "m": 60}[unit]


def metric_names(expression: str) -> set[str]:
    """Names of metrics in a query."""
    return set(re.findall(r"\b(?:str_app|process)_[a-z_]+\b", expression))


def exported_metrics() -> set[str]:
    """Names of the samples that `/metrics` may have, whatever has been counted yet."""
    metrics = Metrics()
    for metric in (metrics.requests, metrics.rejections, metrics.images, metrics.reloads, metrics.request_seconds):
        metric.labels(*["x"] * len(metric._labelnames))
    metrics.model.info({"name": "x"})
    return {re.split(r"[{ ]", line)[0] for line in metrics.text().decode().splitlines() if line[0] != "#"}
