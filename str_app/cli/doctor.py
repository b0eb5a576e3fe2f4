"""The verb `doctor`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from str_app.cli.printing import write_document, write_lines


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object.")] = False,
) -> None:
    """Show versions, processor, kernels, weights, engine and missing extras; fail if something required is broken.

    Example: str-app doctor
    """
    import json

    from str_app.installation import inspect_installation

    findings = inspect_installation()
    if as_json:
        write_document(json.dumps(findings, ensure_ascii=False, indent=2))
    else:
        for section, values in findings.items():
            write_lines(_section(section, values))
    if findings["problems"]:
        raise typer.Exit(1)


def _section(name: str, values: Any) -> str:
    """A heading and one indented line per entry."""
    entries = values.items() if isinstance(values, dict) else ((None, value) for value in values)
    lines = [f"  {value}" if key is None else f"  {key:22} {_text(value)}" for key, value in entries]
    return "\n".join([f"{name}:", *(lines or ["  none"])])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
