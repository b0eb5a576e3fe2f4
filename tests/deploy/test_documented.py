"""docs/how-to/deployment.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.shipped import DEPLOY, VARIABLES, document

FILE = Path("docs/how-to/deployment.md")
PAGE = FILE.read_text()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)", PAGE))))
def test_links_lead_somewhere(target: str) -> None:
    assert (FILE.parent / target).exists()


def test_alerts_targets_settings_and_components_are_those_there_are() -> None:
    alerts = {rule["alert"] for rule in document(DEPLOY / "prometheus/alerts.yml")["groups"][0]["rules"]}
    assert set(re.findall(r"`(StrApp\w+)`", PAGE)) == alerts
    assert set(re.findall(r"STR_APP_[A-Z_]+", PAGE)) <= VARIABLES
    for target in re.findall(r"`make ([a-z-]+)", PAGE):
        assert re.search(rf"^{target}:", Path("Makefile").read_text(), re.MULTILINE), target
    for variable in re.findall(r"`(PORT|SUBNET)", PAGE):
        assert f"${{{variable}:-" in (DEPLOY / "compose/compose.yml").read_text()


def test_snippets_of_yaml() -> None:
    keys, overlay = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    assert set(keys["services"]) == set(document(DEPLOY / "compose/compose.yml")["services"]) - {"proxy"}
    for path in [*overlay["resources"], *overlay["components"]]:
        assert (Path(path.removeprefix("../str-app/")) / "kustomization.yaml").exists()
