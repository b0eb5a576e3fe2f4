"""Prometheus' rules: of metrics that there are, and heard when they should be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.shipped import DEPLOY, document, exported_metrics, metric_names

RULES = DEPLOY / "prometheus/alerts.yml"
CASES = Path("tests/deploy/alerts_test.yml")


def test_every_metric_exists() -> None:
    for rule in document(RULES)["groups"][0]["rules"]:
        used = metric_names(rule["expr"])
        assert used, rule["alert"]
        assert used <= exported_metrics(), rule["alert"]


def test_every_alert_has_a_case_in_which_it_is_heard() -> None:
    heard = {
        case["alertname"]
        for test in document(CASES)["tests"]
        for case in test["alert_rule_test"]
        if "exp_alerts" in case
    }
    assert heard == {rule["alert"] for rule in document(RULES)["groups"][0]["rules"]}


def test_they_are_heard_when_they_should_be() -> None:
    promtool = shutil.which("promtool") or pytest.skip("needs promtool of Prometheus")
    done = subprocess.run([promtool, "test", "rules", CASES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
