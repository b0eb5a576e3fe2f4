"""The verb `models`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from str_app.cli.printing import write_document, write_lines


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the models: parameters, sizes of weights and exported graphs if they are installed, and validation accuracy.

    Example: str-app models
    """
    import json

    described = describe_models()
    if as_json:
        write_document(json.dumps(described, ensure_ascii=False, indent=2))
        return
    typer.echo("| model | parameters | weights | graphs | accuracy |\n|---|---|---|---|---|")
    for entry in described:
        weights = f"{entry['bytes'] / 1e6:.1f} MB" if entry["weights"] else "none"
        graphs = f"{entry['graphs_bytes'] / 1e6:.1f} MB, {entry['precision']}" if entry["graphs"] else "none"
        rows = entry["metrics"].get("validation", [])
        accuracy = ", ".join(f"{row['name']} {row['accuracy']:.1f} (n = {row['n']})" for row in rows) or "–"
        write_lines(f"| {entry['name']} | {entry['parameters'] / 1e6:.2f}M | {weights} | {graphs} | {accuracy} |")


def describe_models() -> list[dict[str, Any]]:
    """One entry per preset.

    name, description, parameters, weights (the file or None), bytes, graphs (the folder or None), graphs_bytes,
    precision (of the graphs), licence, source, charset and metrics, of the graphs if there are any.
    """
    from str_app.engines.graph_folder import folder_bytes, graph_folder, has_graphs
    from str_app.engines.onnx_engine import OnnxEngine
    from str_app.models.checkpoint import read_header
    from str_app.models.presets import get_preset, list_models, weights_path

    entries = []
    for name in list_models():
        preset, path = get_preset(name), weights_path(name)
        installed = path.is_file()
        header = read_header(path) if installed else {}
        folder = graph_folder(name)
        engine = OnnxEngine(folder, 1) if has_graphs(folder) else None
        if engine:
            header = {"charset": engine.charset.characters, "info": engine.info}
        entries.append(
            {
                "name": name,
                "description": preset.description,
                "parameters": preset.parameters,
                "weights": str(path) if installed else None,
                "bytes": path.stat().st_size if installed else 0,
                "graphs": str(folder) if engine else None,
                "graphs_bytes": folder_bytes(folder) if engine else 0,
                "precision": engine.precision if engine else None,
                "licence": preset.licence,
                "source": preset.source,
                "charset": header.get("charset"),
                "metrics": header.get("info", {}).get("metrics", {}),
            }
        )
    return entries
