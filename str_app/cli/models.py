"""The verb `models`."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the models: parameters, size of the weights if they are installed, and validation accuracy.

    Example: str-app models
    """
    import json

    described = describe_models()
    if as_json:
        typer.echo(json.dumps(described, ensure_ascii=False, indent=2))
        return
    typer.echo("| model | parameters | weights | accuracy |\n|---|---|---|---|")
    for entry in described:
        size = f"{entry['bytes'] / 1e6:.1f} MB" if entry["weights"] else "none; train them with str-app train"
        rows = entry["metrics"].get("validation", [])
        accuracy = ", ".join(f"{row['name']} {row['accuracy']:.1f} (n = {row['n']})" for row in rows) or "–"
        typer.echo(f"| {entry['name']} | {entry['parameters'] / 1e6:.2f}M | {size} | {accuracy} |")


def describe_models() -> list[dict[str, Any]]:
    """One entry per preset: name, description, parameters, weights (the file or None), bytes, licence, source, charset
    and metrics.
    """
    from str_app.models.checkpoint import read_header
    from str_app.models.presets import get_preset, list_models, weights_path

    entries = []
    for name in list_models():
        preset, path = get_preset(name), weights_path(name)
        installed = path.is_file()
        header = read_header(path) if installed else {}
        entries.append(
            {
                "name": name,
                "description": preset.description,
                "parameters": preset.parameters,
                "weights": str(path) if installed else None,
                "bytes": path.stat().st_size if installed else 0,
                "licence": preset.licence,
                "source": preset.source,
                "charset": header.get("charset"),
                "metrics": header.get("info", {}).get("metrics", {}),
            }
        )
    return entries
