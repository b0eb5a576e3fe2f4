"""The manifests are valid, of one piece, and fit the server they start."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from str_app.reader import Reader
from str_app.serve.http.app import create_app
from str_app.serve.settings import Settings
from tests.deploy.shipped import (
    DEFAULTS,
    DEPLOY,
    LONGEST_STOP_S,
    VARIABLES,
    document,
    exported_metrics,
    metric_names,
)
from tests.str_app.fake_engine import FakeEngine

FOLDER = DEPLOY / "kubernetes"
COMPONENTS = [path.parent for path in FOLDER.glob("*/kustomization.yaml")]
MANIFESTS = [
    path
    for path in sorted(FOLDER.rglob("*.yaml"))
    if path.name not in ("kustomization.yaml", "prometheus-adapter.yaml")
]
LABELS = {"app.kubernetes.io/name": "str-app"}


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    return document(FOLDER / "deployment.yaml")["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return only


@pytest.mark.parametrize("version", ["1.30", "latest"])
@pytest.mark.parametrize("path", [path for path in MANIFESTS if path.name != "servicemonitor.yaml"], ids=str)
def test_each_is_what_kubernetes_takes(path: Path, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[service-tests]' brings it")
    resource = document(path)
    version = validator.latest_version() if version == "latest" else version
    validator.validate(resource, version, strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate(resource | {"spec": resource["spec"] | {"unheardOf": 1}}, version, strict=True)


def test_every_manifest_is_named_by_a_kustomization() -> None:
    for folder in (FOLDER, *COMPONENTS):
        named = document(folder / "kustomization.yaml").get("resources", [])
        assert {path.name for path in MANIFESTS if path.parent == folder} == set(named)


def kustomized(folder: Path) -> dict[str, dict[str, Any]]:
    kubectl = shutil.which("kubectl") or pytest.skip("needs kubectl")
    built = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return {resource["kind"]: resource for resource in yaml.safe_load_all(built.stdout)}


def test_an_overlay_may_take_every_component(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "base")
    overlay = {
        "kind": "Kustomization",
        "namespace": "reading",
        "resources": ["base"],
        "components": [f"base/{folder.name}" for folder in COMPONENTS],
        "images": [{"name": "str-app", "newName": "registry.example.org/str-app", "newTag": "7"}],
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(overlay))
    built = kustomized(tmp_path)
    deployment = built["Deployment"]
    assert "replicas" not in deployment["spec"]  # they are the autoscaler's
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    mount = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "keys")
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables["STR_APP_API_KEYS_FILE"] == f"{mount}/keys"
    assert set(variables) <= VARIABLES
    assert {m["name"] for m in container["volumeMounts"]} == {"keys", "tmp"}
    assert {resource["metadata"]["namespace"] for resource in built.values()} == {"reading"}
    assert kustomized(FOLDER)["Deployment"]["spec"]["replicas"] >= 2


def test_all_mean_the_same_pods() -> None:
    deployment, service, pdb, policy, monitor, hpa = (
        document(FOLDER / f"{name}.yaml")
        for name in (
            "deployment",
            "service",
            "pdb",
            "networkpolicy",
            "monitoring/servicemonitor",
            "autoscaling/hpa",
        )
    )
    template = deployment["spec"]["template"]
    assert template["metadata"]["labels"] == LABELS
    assert deployment["spec"]["selector"]["matchLabels"] == LABELS
    assert service["spec"]["selector"] == LABELS
    assert pdb["spec"]["selector"]["matchLabels"] == LABELS
    assert policy["spec"]["podSelector"]["matchLabels"] == LABELS
    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == LABELS
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert hpa["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]

    (port,) = template["spec"]["containers"][0]["ports"]
    (outside,) = service["spec"]["ports"]
    assert outside["targetPort"] == port["name"]
    assert policy["spec"]["ingress"][0]["ports"] == [{"port": port["name"]}]
    assert monitor["spec"]["endpoints"][0]["port"] == outside["name"]
    assert f"STR_APP_PORT={port['containerPort']}" in Path("Dockerfile").read_text()


def test_probes_ask_for_what_there_is(container: dict[str, Any]) -> None:
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    with TestClient(create_app(Settings(), lambda: Reader(FakeEngine()))) as client:
        for probe in probes.values():
            assert client.get(probe["httpGet"]["path"]).status_code in (200, 503)
        assert client.get("/metrics").status_code == 200
    # A server that is busy, warming up or stopping is not ready, but it is alive.
    assert probes["readiness"]["httpGet"]["path"] == probes["startup"]["httpGet"]["path"] == "/readyz"
    assert probes["liveness"]["httpGet"]["path"] == "/healthz"
    assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] >= 60


def test_the_stop_is_long_enough(pod: dict[str, Any], container: dict[str, Any]) -> None:
    command, waits = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] > int(waits) + LONGEST_STOP_S
    readiness = container["readinessProbe"]
    # By then the readiness probe has said so as well.
    assert DEFAULTS["drain_delay_s"] > readiness["periodSeconds"] * readiness["failureThreshold"]


def test_it_is_locked_up(pod: dict[str, Any], container: dict[str, Any]) -> None:
    inner, outer = container["securityContext"], pod["securityContext"]
    assert inner["readOnlyRootFilesystem"] is True
    assert inner["allowPrivilegeEscalation"] is False
    assert inner["capabilities"] == {"drop": ["ALL"]}
    assert outer["runAsNonRoot"] is True
    assert outer["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {outer['runAsUser']}:{outer['runAsGroup']}" in Path("Dockerfile").read_text()
    assert pod["automountServiceAccountToken"] is False
    # A Service called str-app would set STR_APP_PORT, which is a setting, to tcp://….
    assert pod["enableServiceLinks"] is False


def test_settings_exist_and_cores_are_whole(container: dict[str, Any]) -> None:
    assert {variable["name"] for variable in container["env"]} <= VARIABLES
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    assert int(limits["cpu"]) == int(requests["cpu"])  # a part of a core would be no thread


def test_it_scales_by_a_metric_that_there_is() -> None:
    (metric,) = document(FOLDER / "autoscaling/hpa.yaml")["spec"]["metrics"]
    (rule,) = document(FOLDER / "autoscaling/prometheus-adapter.yaml")["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] in exported_metrics()
    assert metric_names(rule["seriesQuery"]) == {metric["pods"]["metric"]["name"]}
    assert int(metric["pods"]["target"]["averageValue"]) >= DEFAULTS["max_batch"]
