"""The manifests of bulk reading and elastic training are valid and name options that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from str_app.cli import build_app
from str_app.training.settings import make_settings
from tests.deploy.shipped import DEPLOY, document, documents

RAYJOB, ELASTIC = DEPLOY / "ray/rayjob.yaml", DEPLOY / "training/elastic.yaml"
# Fields of RayJobSpec and RayClusterSpec in ray.io/v1 that matter here; KubeRay's schemas are in no package.
JOB_FIELDS = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
CLUSTER_FIELDS = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods() -> list[dict[str, Any]]:
    _, training = documents(ELASTIC)
    return [*(group["template"] for group in groups(document(RAYJOB))), training["spec"]["template"]]


def options_of(verb: str, arguments: list[str]) -> dict[str, Any]:
    """The options as the command line understands them; fails on one that it does not have."""
    command = get_command(build_app()).commands[verb]  # type: ignore[attr-defined]
    return command.make_context(verb, list(arguments)).params


@pytest.mark.parametrize("version", ["1.30", "latest"])
def test_kubernetes_takes_them(version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[service-tests]' brings it")
    version = validator.latest_version() if version == "latest" else version
    for resource in documents(ELASTIC):
        validator.validate(resource, version, strict=True)
    for pod in pods():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"} | pod["metadata"], "spec": pod["spec"]}
        validator.validate(pod, version, strict=True)
        with pytest.raises(validator.ValidationError):
            validator.validate(pod | {"spec": pod["spec"] | {"unheardOf": 1}}, version, strict=True)


def test_the_fields_of_the_ray_job() -> None:
    job = document(RAYJOB)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"].keys() == JOB_FIELDS
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster.keys() == CLUSTER_FIELDS
    assert f"ray=={cluster['rayVersion']}\n" in Path("constraints.txt").read_text()
    for group in groups(job):
        assert group.keys() <= GROUP_FIELDS
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == "str-app:ray"
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_ray_job_reads_from_the_volume_that_all_pods_have() -> None:
    job = document(RAYJOB)
    program, verb, *arguments = shlex.split(job["spec"]["entrypoint"])
    options = options_of(verb, arguments)
    assert (program, options["ray"], options["workers"]) == ("str-app", True, None)
    for group in groups(job):
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert {volume["name"] for volume in spec["volumes"]} == set(folders)
        for path in (options["out"], *options["inputs"]):
            assert path.is_relative_to(folders["data"])
    # An actor for each core: its memory is the command's, and some is left for Ray.
    (container,) = groups(job)[1]["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    assert int(limits["cpu"]) * options["memory_per_actor"] <= 0.7 * 1024 * int(limits["memory"].removesuffix("Gi"))


def test_the_pods_of_training_find_each_other_and_continue() -> None:
    service, job = documents(ELASTIC)
    spec = job["spec"]["template"]["spec"]
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert spec["subdomain"] == service["metadata"]["name"]
    command = spec["containers"][0]["command"]
    split = command.index("-m")
    launcher = dict(argument[2:].split("=", 1) for argument in command[1:split])
    host, _ = launcher["rdzv-endpoint"].split(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    fewest, most = map(int, launcher["nnodes"].split(":"))
    assert most == job["spec"]["parallelism"] == job["spec"]["completions"]
    verb, *arguments = command[split + 2 :]
    options = options_of(verb, arguments)
    assert options["auto_resume"] is True
    settings = make_settings(options["set_"], None, preset=options["preset"], train=("x",))
    for nodes in range(fewest, most + 1):
        assert settings.batch_size % (nodes * int(launcher["nproc-per-node"])) == 0


def test_all_are_locked_up() -> None:
    user = re.search(r"^USER (\d+):(\d+)$", Path("Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    for pod in pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (
            int(user[1]),
            int(user[2]),
        )
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
