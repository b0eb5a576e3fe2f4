"""Hooks of mkdocs.yml: pages written from the code, and links that lead out of docs/.

The command line, the settings and the HTTP API have their only source in the code. Files of the checkout that a page
links to are not part of the site: the link becomes the file's path, or leads to the page made of the file.
"""

from __future__ import annotations

import dataclasses
import html
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Pages that are files of the checkout outside docs/.
ELSEWHERE = {
    "models/weights/small.md": "results/small.md",
    "CHANGELOG.md": "log/changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
SOURCES = {page: source for source, page in ELSEWHERE.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written from the code and those that lie elsewhere in the checkout."""
    pages = {
        "reference/cli.md": command_line(),
        "reference/server-settings.md": server_settings(),
        "reference/training-settings.md": training_settings(),
        "reference/http.md": http_api(),
    }
    for source, page in ELSEWHERE.items():
        pages[page] = (ROOT / source).read_text(encoding="utf-8")
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    openapi = (ROOT / "tests/end_to_end/golden/openapi.json").read_text(encoding="utf-8")
    files.append(File.generated(config, "reference/openapi.json", content=openapi))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links relative to the page's place in the checkout → relative to its place in the site."""
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def replace(link: re.Match[str]) -> str:
        label, target, fragment = link["label"], link["target"], link["fragment"] or ""
        if re.match(r"[a-z]+:", target):
            return link[0]
        goal = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if goal in ELSEWHERE:
            goal = f"docs/{ELSEWHERE[goal]}"
        if goal.startswith("docs/"):
            relative = posixpath.relpath(goal.removeprefix("docs/"), posixpath.dirname(here) or ".")
            return f"[{label}]({relative}{fragment})"
        if not (ROOT / goal).exists():
            return link[0]  # mkdocs warns
        return label if label.strip("`/").endswith(goal.split("/")[-1]) else f"{label} (`{goal}`)"

    return re.sub(r"(?<!!)\[(?P<label>[^\]\[]+)\]\((?P<target>[^)\s#]+)(?P<fragment>#[^)\s]*)?\)", replace, markdown)


def cell(text: object) -> str:
    """`text` in a cell of a table."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("<", "&lt;").strip()


def command_line() -> str:
    """Every command with its arguments and options, from the parser itself."""
    from str_app.cli import build_app

    command = typer.main.get_command(build_app())
    lines = [
        "# Command line",
        "",
        "`str-app COMMAND --help` prints the same. `python -m str_app` is the same command in the checkout.",
        "Exit codes: 0 success, 1 error, 2 wrong usage, 128 + n stopped by signal n.",
        "",
    ]
    for name, verb in commands(command, "str-app"):
        lines += [f"## {name}", "", verb.help or "", ""]
        context = verb.context_class(verb)
        options = [each for each in verb.params if not each.hidden and each.name != "help"]
        lines += ["| | |", "|---|---|", *(option_row(option, context) for option in options)]
        lines.append("")
    return "\n".join(lines)


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(full name, command) of all commands below a group."""
    if hasattr(command, "commands"):
        for word, child in command.commands.items():
            yield from commands(child, f"{name} {word}")
    else:
        yield name, command


def option_row(option: Any, context: Any) -> str:
    name, text = option.get_help_record(context)
    name = re.sub(r" <(list\[\w+\]|path|str)>$", "", name)  # Python's types, which typer gives arguments
    shown = html.escape(name).replace("|", "&#124;")  # between backticks, a backslash would stay
    return f"| <code>{shown}</code> | {cell(text)} |"


def server_settings() -> str:
    """The fields of `serve.settings.Settings`."""
    from str_app.serve.settings import Settings

    lines = [
        "# Server settings",
        "",
        "Each is an environment variable; those that `str-app serve --help` lists are options too. Options override",
        "variables.",
        "",
        "| variable | default | |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        if field.default_factory:
            default = "usable cores"
        lines.append(f"| `STR_APP_{name.upper()}` | {default} | {cell(field.description)} |")
    return "\n".join(lines)


def training_settings() -> str:
    """The fields of `TrainSettings` with their explanations, which stand in its docstring."""
    from str_app.training.settings import FINE_TUNING, TrainSettings

    documented = (TrainSettings.__doc__ or "").split("Attributes:\n")[1]
    explained: dict[str, str] = {}
    for entry in re.split(r"\n(?=        \w)", "\n" + documented):
        names, _, text = entry.strip().partition(":")
        explained |= dict.fromkeys(names.split(", "), text)
    lines = [
        "# Training settings",
        "",
        "`str-app train --set KEY=VALUE` changes any of them but `preset` and `start_from`, which are the options",
        "`--preset` and `--from`; of `architecture` and `preprocessing` single fields. The second default holds with",
        "`--from MODEL`.",
        "",
        "| key | default | with `--from` | |",
        "|---|---|---|---|",
    ]
    for field in dataclasses.fields(TrainSettings):
        plain = field.default not in (dataclasses.MISSING, "", ())
        default = f"`{field.default}`" if plain else ""
        other = f"`{FINE_TUNING[field.name]}`" if field.name in FINE_TUNING else ""
        text = cell(explained[field.name])
        lines.append(f"| `{field.name}` | {default} | {other} | {text} |")
    return "\n".join(lines)


def http_api() -> str:
    """The paths of the committed OpenAPI description, which a test compares with the server's."""
    api = json.loads((ROOT / "tests/end_to_end/golden/openapi.json").read_text(encoding="utf-8"))
    lines = [
        "# HTTP API",
        "",
        "The complete description, with schemas, is [openapi.json](openapi.json); a server shows it at `/docs`.",
        "How requests are sent is explained in [Serving](../how-to/serving.md).",
        "",
    ]
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            text = operation.get("description") or operation.get("summary", "")
            lines += [f"## {method.upper()} {path}", "", text, ""]
            parameters = operation.get("parameters", [])
            if parameters:
                lines += ["| parameter | in | |", "|---|---|---|"]
                lines += [f"| `{p['name']}` | {p['in']} | {cell(p.get('description', ''))} |" for p in parameters]
                lines.append("")
            bodies = operation.get("requestBody", {}).get("content", {})
            if bodies:
                lines += ["Body: " + ", ".join(f"`{kind}`" for kind in bodies) + ".", ""]
            lines += ["| status | |", "|---|---|"]
            lines += [f"| {code} | {cell(r.get('description', ''))} |" for code, r in operation["responses"].items()]
            lines.append("")
    return "\n".join(lines)
