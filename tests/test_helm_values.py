"""The chart's values: what is wrong is refused by name, and each is described."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import CHART, refused, setting

from binworks.service.settings import Settings

pytest_plugins = ["helm_fixture"]

OWN_SETTINGS = {
    *("home", "store", "database", "host", "port", "scheduler", "dashboard"),
    *("tls", "credentials", "log_to"),
}
SERVER = "database.existingSecret=db"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("workers.replica=3", "replica"),
        ("workers.replicas=-1", "minimum"),
        ("workers.memory=lots", "pattern"),
        ("workers.env.A-B=1", "pattern"),
        ("workers.maxUnavailable=all", "pattern"),
        ("workers.autoscaling.kind=magic", "one of"),
        ("driver.replicas=3", "maximum"),
        ("user=0", "minimum"),
        ("image.digest=latest", "pattern"),
        ("settings.unit_event=5", "unit_event"),
        ("settings.database=sqlite:///x", "database"),
        ("settings.log_to=files", "log_to"),
        ("data[0].name=eos", "mountPath"),
        ("database.url=mysql://x", "pattern"),
        ("store.s3.url=https://bucket", "pattern"),
        ("scheduler.expose.cidrs[0]=everybody", "pattern"),
        ("tls.source=self-made", "one of"),
        ("ingress.hosts[0]=https://binworks.example.org", "pattern"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm: Path, given: str, complaint: str) -> None:
    said = refused(helm, *setting(given))
    assert re.split(r"[.=\[]", given)[0] in said
    assert complaint in said


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["api.replicas=2"], "api.replicas: more than one API needs PostgreSQL"),
        (["driver.replicas=2"], "driver.replicas: a second driver needs PostgreSQL"),
        ([SERVER, "database.url=postgresql://db/x"], "url or existingSecret, not both"),
        (["store.s3.url=s3://bucket", "store.existingClaim=x"], "s3.url or existingClaim, not both"),
        (["store.s3.url=s3://bucket", "store.s3.endpoint=http://s3"], "store.s3.allowHttp"),
        (["workers.processes=20"], "workers.memory: each"),
        (["workers.stagger=20"], "workers.stagger"),
        (["workers.autoscaling.minReplicas=60"], "minReplicas is larger"),
        (["workers.autoscaling.kind=hpa", "workers.autoscaling.minReplicas=0"], "at least one pod"),
        (["workers.autoscaling.kind=keda"], "keda.prometheus"),
        (["tls.source=secrets"], "tls.secrets.client: name the secret"),
        (["scheduler.expose.type=NodePort"], "scheduler.expose.cidrs"),
        (["scheduler.expose.type=NodePort", "tls.source=none"], "scheduler.expose: whoever reaches"),
        (["ingress.enabled=true"], "ingress.hosts: name at least one"),
        (["credentials.existingSecret=x", "credentials.volume.emptyDir.medium=Memory"], "not both"),
    ],
)
def test_values_that_do_not_go_together_are_refused_in_a_sentence(
    helm: Path, given: list[str], complaint: str
) -> None:
    assert complaint in refused(helm, *setting(*given))


@pytest.mark.parametrize(
    ("given", "api"),
    [
        (
            ["workers.autoscaling.kind=keda", "workers.autoscaling.keda.prometheus=http://p"],
            "keda.sh/v1alpha1",
        ),
        (["tls.source=cert-manager"], "cert-manager.io/v1"),
        (["monitoring.serviceMonitor.enabled=true"], "monitoring.coreos.com/v1"),
        (["monitoring.rules.enabled=true"], "monitoring.coreos.com/v1"),
    ],
)
def test_what_the_cluster_lacks_is_said(helm: Path, given: list[str], api: str) -> None:
    assert f"the cluster does not know {api}" in refused(helm, *setting(*given), extensions=False)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


def properties(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in schema.get("properties", {}).items():
        yield f"{path}{name}", value
        yield from properties(value, f"{path}{name}.")
    yield from properties(schema["items"], f"{path}[].") if "items" in schema else ()


def test_every_value_is_described(schema: dict[str, Any]) -> None:
    assert [path for path, value in properties(schema) if not value.get("description", "").strip()] == []


def test_every_object_of_the_schema_is_closed(schema: dict[str, Any]) -> None:
    open_ones = [
        path
        for path, value in properties(schema)
        if "properties" in value and value.get("additionalProperties") is not False
    ]
    assert open_ones == []


def test_the_schema_knows_all_values_and_no_other(schema: dict[str, Any]) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def keys(given: Mapping[str, Any], known: Mapping[str, Any], path: str = "") -> Iterator[str]:
        for name, value in given.items():
            yield f"{path}{name}"
            inner = known["properties"][name]
            if isinstance(value, dict) and "properties" in inner:
                yield from keys(value, inner, f"{path}{name}.")

    described = {
        path
        for path, _ in properties(schema)
        if "[]" not in path and not path.startswith("settings.") and path != "global"
    }
    assert {key for key in keys(values, schema) if not key.startswith("settings.")} == described


def test_the_schema_knows_all_settings_of_the_service(schema: dict[str, Any]) -> None:
    assert set(schema["properties"]["settings"]["properties"]) == set(Settings.model_fields) - OWN_SETTINGS


def test_the_readme_lists_all_values(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(root / "helm/readme.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
