"""The chart: helm accepts it, Kubernetes' schemas accept what it renders, and the parts fit together."""

from __future__ import annotations

import base64
import copy
import importlib.util
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_chart import CHART, EXAMPLES, RELEASE, Manifest, Rendered, containers_of, render, run, setting

from binworks.deploy import tls
from binworks.deploy.scheduler import CONFIGURATION
from binworks.service.environment import WORKER
from binworks.service.settings import Settings

pytest_plugins = ["helm_fixture"]

OLD, NEW = "1.20", "1.33"
VALIDATED = {OLD: "1.25", NEW: "1.33"}  # there are no schemas of older ones
EXTENSION_KINDS = {"ScaledObject", "Certificate", "Issuer", "ServiceMonitor", "PrometheusRule"}
WAYS: dict[str, list[str]] = {
    "default": [],
    **{path.stem: ["--values", str(path)] for path in sorted(EXAMPLES.glob("*.yaml"))},
    "keda": setting(
        "workers.autoscaling.kind=keda", "workers.autoscaling.keda.prometheus=http://prometheus:9090"
    ),
    "bare": setting("tls.source=none", "networkPolicy.enabled=false", "disruption.enabled=false"),
    "server": setting("database.url=postgresql://u:p@db/x", "api.replicas=2", "driver.replicas=2"),
    "egress": setting("networkPolicy.egress.enabled=true"),
}
BROUGHT = {  # what the examples say that one has
    "PersistentVolumeClaim": {"binworks-store", "binworks-kernels", "wmass-store", "corrections"},
    "ConfigMap": {"catalogue"},
    "Secret": {
        *("binworks-database", "binworks-bucket", "binworks-token", "binworks-credentials"),
        *("binworks-scheduler", "binworks-worker", "binworks-client"),
    },
}


EXAMPLE_NAMES = [path.stem for path in sorted(EXAMPLES.glob("*.yaml"))]
RENDERED = [*((way, NEW) for way in WAYS), *((way, OLD) for way in ("default", *EXAMPLE_NAMES))]


@pytest.fixture(scope="session", params=RENDERED, ids=str)
def rendered(request: pytest.FixtureRequest, helm: Path) -> Rendered:
    way, version = request.param
    return render(helm, *WAYS[way], version=version)


@pytest.fixture(scope="session")
def default(helm: Path) -> Rendered:
    return render(helm)


@pytest.fixture(scope="session")
def s3(helm: Path) -> Rendered:
    return render(helm, *WAYS["s3"])


def selects(selector: Manifest, pod: Manifest) -> bool:
    labels = pod["metadata"]["labels"]
    return bool(selector.items() <= labels.items())


@pytest.mark.parametrize("way", ["default", *EXAMPLE_NAMES])
def test_helm_lint_finds_nothing(helm: Path, way: str) -> None:
    done = run(helm, "lint", "--strict", CHART, *WAYS[way])
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_example_is_tried() -> None:
    assert {path.stem for path in EXAMPLES.iterdir()} <= set(WAYS)


def test_kubernetes_accepts_every_manifest(rendered: Rendered, request: pytest.FixtureRequest) -> None:
    version = OLD if f"'{OLD}'" in request.node.name else NEW
    for manifest in rendered.all:
        if manifest["kind"] in EXTENSION_KINDS:
            continue
        if manifest["apiVersion"] == "policy/v1beta1":  # gone in 1.25, and the same but for the name
            manifest = {**manifest, "apiVersion": "policy/v1"}
        kubernetes_validate.validate(manifest, VALIDATED[version], strict=True)


def test_older_clusters_get_older_interfaces(helm: Path) -> None:
    def versions(version: str) -> dict[str, str]:
        found = render(helm, *WAYS["s3"], version=version)
        return {
            kind: found.of(kind)[0]["apiVersion"]
            for kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler")
        }

    old, new = versions(OLD), versions(NEW)
    assert old == {"PodDisruptionBudget": "policy/v1beta1", "HorizontalPodAutoscaler": "autoscaling/v2beta2"}
    assert new == {"PodDisruptionBudget": "policy/v1", "HorizontalPodAutoscaler": "autoscaling/v2"}


def test_names_are_unique(rendered: Rendered) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in rendered.all]
    assert len(set(names)) == len(names)


def test_a_long_release_name_stays_within_the_limits(helm: Path) -> None:
    done = run(helm, "template", "w" * 53, CHART, *WAYS["htcondor-like"])
    names = [d["metadata"]["name"] for d in yaml.safe_load_all(done.stdout) if d]
    assert max(map(len, names)) <= 63


def test_selectors_select_what_is_there(rendered: Rendered) -> None:
    pods = rendered.pods.values()
    for deployment in rendered.of("Deployment"):
        spec = deployment["spec"]
        assert selects(spec["selector"]["matchLabels"], spec["template"])
    for service in rendered.of("Service"):
        assert sum(selects(service["spec"]["selector"], pod) for pod in pods) == 1
    for policy in rendered.of("NetworkPolicy"):
        assert sum(selects(policy["spec"]["podSelector"]["matchLabels"], pod) for pod in pods) == 1
    for budget in rendered.of("PodDisruptionBudget"):
        assert sum(selects(budget["spec"]["selector"]["matchLabels"], pod) for pod in pods) == 1
    for monitor in rendered.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (service,) = (s for s in rendered.of("Service") if selects(wanted, s))
        assert {e["port"] for e in monitor["spec"]["endpoints"]} <= {
            p["name"] for p in service["spec"]["ports"]
        }


def test_scalers_and_ingresses_lead_to_what_is_there(rendered: Rendered) -> None:
    scalers = [*rendered.of("HorizontalPodAutoscaler"), *rendered.of("ScaledObject")]
    for scaler in scalers:
        assert scaler["spec"]["scaleTargetRef"]["name"] in rendered.names("Deployment")
        assert "replicas" not in rendered.get("Deployment", "-worker")["spec"]  # helm would undo what it does
    for ingress in rendered.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            (path,) = rule["http"]["paths"]
            service = rendered.get("Service", path["backend"]["service"]["name"])
            assert path["backend"]["service"]["port"] in [
                {"name": p["name"]} for p in service["spec"]["ports"]
            ]


def test_services_probes_and_policies_name_ports_that_exist(rendered: Rendered) -> None:
    for service in rendered.of("Service"):
        (pod,) = (pod for pod in rendered.pods.values() if selects(service["spec"]["selector"], pod))
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports(pod)
    for policy in rendered.of("NetworkPolicy"):
        (pod,) = (
            p for p in rendered.pods.values() if selects(policy["spec"]["podSelector"]["matchLabels"], p)
        )
        opened = {port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", ())}
        assert opened <= ports(pod)
    for _, container in rendered.containers():
        probes = [value for key, value in container.items() if key.endswith("Probe")]
        offered = {port["name"] for port in container.get("ports", [])}
        assert {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe} <= offered


def test_every_port_says_its_protocol(rendered: Rendered) -> None:
    """Older Kubernetes cannot merge lists of ports that leave it out."""
    offered = [port for _, container in rendered.containers() for port in container.get("ports", ())]
    led_to = [port for service in rendered.of("Service") for port in service["spec"]["ports"]]
    assert {port["protocol"] for port in (*offered, *led_to)} == {"TCP"}


def ports(pod: Manifest) -> set[str]:
    return {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", [])}


def test_what_pods_refer_to_exists(rendered: Rendered) -> None:
    certificates = {c["spec"]["secretName"] for c in rendered.of("Certificate")}
    there = {kind: rendered.names(kind) | BROUGHT[kind] for kind in BROUGHT}
    there["Secret"] |= certificates
    for pod in rendered.pods.values():
        spec = pod["spec"]
        assert spec["serviceAccountName"] in rendered.names("ServiceAccount")
        for volume in spec["volumes"]:
            assert (
                volume.get("persistentVolumeClaim", {}).get("claimName", "binworks-store")
                in there["PersistentVolumeClaim"]
            )
            assert volume.get("secret", {}).get("secretName", "binworks-token") in there["Secret"]
            assert volume.get("configMap", {}).get("name", "catalogue") in there["ConfigMap"]
        for container in containers_of(pod):
            for variable in container["env"]:
                source = variable.get("valueFrom", {}).get("secretKeyRef")
                assert source is None or source["name"] in there["Secret"]
        mounted = {mount["name"] for container in containers_of(pod) for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_no_container_is_root_or_may_write_its_image(rendered: Rendered) -> None:
    for pod, container in rendered.containers():
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert pod["spec"]["securityContext"]["runAsUser"] > 0
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert {"name": "scratch", "mountPath": "/tmp"} in container["volumeMounts"]


def test_no_pod_may_ask_the_cluster_for_anything(rendered: Rendered) -> None:
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & {
        manifest["kind"] for manifest in rendered.all
    }
    accounts = [pod["spec"]["serviceAccountName"] for pod in rendered.pods.values()]
    assert len(set(accounts)) == len(accounts)  # what one is given later, the others have not
    for pod in rendered.pods.values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False
    for account in rendered.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_secrets_are_in_secrets_only(helm: Path) -> None:
    password = "correct-horse-battery"
    found = render(helm, *setting(f"database.url=postgresql://binworks:{password}@db.example.org/binworks"))
    holders = [manifest for manifest in found.all if password in json.dumps(manifest)]
    assert [holder["kind"] for holder in holders] == ["Secret"]
    keys = {
        base64.b64decode(value).decode()
        for s in found.of("Secret")
        for name, value in s.get("data", {}).items()
        if name == "tls.key"
    }
    rest = json.dumps([manifest for manifest in found.all if manifest["kind"] != "Secret"])
    assert keys
    assert not [key for key in keys if key.splitlines()[1] in rest]
    for variable in found.container("driver")["env"]:
        assert variable["name"] != "BINWORKS_DATABASE" or "valueFrom" in variable


def test_a_pod_gets_the_secrets_of_its_role_alone(s3: Rendered) -> None:
    name = f"{RELEASE}-binworks"

    def held(component: str) -> set[str]:
        pod = s3.pods[component]
        volumes = {v["secret"]["secretName"] for v in pod["spec"]["volumes"] if "secret" in v}
        refs = [e["valueFrom"]["secretKeyRef"] for c in containers_of(pod) for e in c["env"] if _secret(e)]
        return volumes | {ref["name"] for ref in refs}

    assert held("scheduler") == {f"{name}-scheduler-tls"}
    assert held("worker") == {f"{name}-worker-tls", "binworks-bucket"}
    assert held("driver") == {f"{name}-client-tls", "binworks-bucket", "binworks-database"}
    certificate = f"{name}-client-tls"  # without its key, below
    assert held("api") == {certificate, "binworks-token", "binworks-bucket", "binworks-database"}
    (volume,) = (v for v in s3.pods["api"]["spec"]["volumes"] if v["name"] == "certificate")
    assert {item["key"] for item in volume["secret"]["items"]} == {"ca.crt", "tls.crt"}


def _secret(variable: Manifest) -> bool:
    return "secretKeyRef" in variable.get("valueFrom", {})


def test_only_driver_and_workers_reach_the_scheduler(default: Rendered, s3: Rendered) -> None:
    def rules(found: Rendered, component: str) -> list[tuple[str | None, set[str]]]:
        policy = found.get("NetworkPolicy", f"-{component}")["spec"]
        label = "app.kubernetes.io/component"
        return [
            (
                rule["ports"][0]["port"] if "ports" in rule else None,
                {peer["podSelector"]["matchLabels"][label] for peer in rule.get("from", ())},
            )
            for rule in policy["ingress"]
        ]

    assert rules(s3, "scheduler") == [("comm", {"driver", "worker"}), ("dashboard", {"api"})]
    assert rules(s3, "worker") == [(None, {"driver", "scheduler", "worker"})]
    assert rules(s3, "driver") == []
    assert rules(default, "scheduler") == [("comm", {"service", "worker"}), ("dashboard", {"service"})]
    assert rules(default, "service") == [("http", set())]


def test_workers_outside_come_in_by_the_port_for_them_alone(helm: Path) -> None:
    found = render(helm, *WAYS["htcondor-like"])
    outside = found.get("Service", "-scheduler-outside")["spec"]
    assert [port["targetPort"] for port in outside["ports"]] == ["comm"]
    assert outside["loadBalancerSourceRanges"] == ["198.51.100.0/24"]
    comm, dashboard = found.get("NetworkPolicy", "-scheduler")["spec"]["ingress"]
    assert {"ipBlock": {"cidr": "198.51.100.0/24"}} in comm["from"]
    assert len(dashboard["from"]) == 1


def test_what_there_is_one_of_is_replaced_not_doubled(default: Rendered, s3: Rendered) -> None:
    def recreated(found: Rendered) -> set[str]:
        return {
            d["metadata"]["name"].removeprefix(f"{RELEASE}-binworks-")
            for d in found.of("Deployment")
            if d["spec"].get("strategy") == {"type": "Recreate"}
        }

    assert recreated(default) == {"service", "scheduler"}
    assert recreated(s3) == {"driver", "scheduler"}


def test_more_workers_change_a_number_and_nothing_else(helm: Path, tmp_path: Path) -> None:
    """Helm's own certificates aside: it keeps them in a cluster, and `helm template` cannot look there."""

    def objects(*values: str) -> list[Manifest]:
        found = render(helm, *setting("workers.replicas=2", "podAnnotations.a=b", *values))
        return [m for m in found.all if m["kind"] != "Secret"]

    before, after = objects(), objects("workers.replicas=200")
    workers = next(
        m for m in before if m["metadata"]["name"].endswith("-worker") and m["kind"] == "Deployment"
    )
    changed = copy.deepcopy(before)
    changed[before.index(workers)]["spec"]["replicas"] = 200
    assert changed == after


def test_new_settings_replace_api_and_driver_and_no_worker(helm: Path) -> None:
    before, after = render(helm), render(helm, *setting("settings.unit_events=5"))
    changed = {component for component in before.pods if before.pods[component] != after.pods[component]}
    assert changed == {"service"}


def test_certificates_of_the_chart_fit_each_other(default: Rendered, tmp_path: Path) -> None:
    for role in tls.ROLES:
        data = default.get("Secret", f"-{role}-tls")["data"]
        (tmp_path / role).mkdir()
        for name, value in data.items():
            (tmp_path / role / name).write_bytes(base64.b64decode(value))
    found = tls.Certificates(tmp_path)
    assert found.roles() == tls.ROLES
    assert [shown.fault for shown in found.shown()] == [None] * 4
    assert len({found.ca(role).read_text() for role in tls.ROLES}) == 1
    assert len({found.key(role).read_text() for role in tls.ROLES}) == 3


def test_certificates_lie_where_the_programs_look(default: Rendered) -> None:
    settings = Settings.model_validate_json(default.get("ConfigMap", "-settings")["data"]["settings.json"])
    assert settings.tls is not None
    for name, role in (("scheduler", "scheduler"), ("worker", "worker"), ("driver", "client")):
        mounts = {m["mountPath"] for m in default.container(name)["volumeMounts"]}
        assert str(settings.tls / role) in mounts
    for name, role in (("scheduler", "scheduler"), ("worker", "worker")):
        flags = tls.Certificates(settings.tls).flags(role)  # type: ignore[arg-type]
        assert default.container(name)["command"][-len(flags) :] == flags


def test_the_settings_are_settings_of_the_service(rendered: Rendered) -> None:
    settings = Settings.model_validate_json(rendered.get("ConfigMap", "-settings")["data"]["settings.json"])
    assert settings.scheduler.endswith("://wmass-binworks-scheduler:8786")
    assert (settings.scheduler.partition(":")[0] == "tls") == (settings.tls is not None)
    assert "wmass-binworks-scheduler" in rendered.names("Service")
    for ingress in rendered.of("Ingress"):
        assert {rule["host"] for rule in ingress["spec"]["rules"]} <= set(settings.hosts)


def test_commands_exist_and_take_their_options(rendered: Rendered) -> None:
    for _, container in rendered.containers():
        words = [*container["command"], *container.get("args", ())]
        usage = _usage(words[2], *(word for word in words[3:4] if word.isidentifier()))
        options = {word for word in words if word.startswith("--")}
        assert options <= set(re.findall(r"--[\w-]+", usage)), container["name"]


_usages: dict[tuple[str, ...], str] = {}


def _usage(module: str, *program: str) -> str:
    assert importlib.util.find_spec(module) is not None, module
    if (module, *program) not in _usages:
        command = [sys.executable, "-m", module, *program, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        _usages[module, *program] = done.stdout
    return _usages[module, *program]


def test_processes_get_the_environment_that_up_gives_them(rendered: Rendered) -> None:
    settings = Settings.model_validate_json(rendered.get("ConfigMap", "-settings")["data"]["settings.json"])
    encrypted = tls.ENVIRONMENT if settings.tls else {}
    for _, container in rendered.containers():
        given = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert given.items() >= {**WORKER, **CONFIGURATION, **encrypted}.items()


def test_a_pod_is_ended_by_force_only_after_its_own_time_is_over(rendered: Rendered) -> None:
    command = rendered.container("worker")["command"]
    grace = int(command[command.index("--grace") + 1])
    assert rendered.pods["worker"]["spec"]["terminationGracePeriodSeconds"] > grace
    api = rendered.container("api")
    waits = int(api["lifecycle"]["preStop"]["exec"]["command"][1])
    pod = next(pod for pod in rendered.pods.values() if api in pod["spec"]["containers"])
    assert pod["spec"]["terminationGracePeriodSeconds"] >= waits + 20


def test_the_alerts_are_those_of_the_house(root: Path, s3: Rendered) -> None:
    house = (root / "deploy/grafana/alerts.yaml").read_text()
    assert (CHART / "files/alerts.yaml").read_text() == house
    (rules,) = s3.of("PrometheusRule")
    assert rules["spec"] == yaml.safe_load(house)


def test_workers_are_scaled_by_a_metric_that_the_api_shows(root: Path, s3: Rendered, helm: Path) -> None:
    metric = "binworks_workers_wanted"
    (scaler,) = s3.of("HorizontalPodAutoscaler")
    (source,) = scaler["spec"]["metrics"]
    assert source["external"]["metric"]["name"] == metric
    processes = _processes(s3)
    assert source["external"]["target"]["averageValue"] == processes
    keda = render(helm, *WAYS["keda"])
    (trigger,) = keda.of("ScaledObject")[0]["spec"]["triggers"]
    query = 'max(binworks_workers_wanted{namespace="physics",service="wmass-binworks"})'
    assert trigger["metadata"]["query"] == query
    assert trigger["metadata"]["threshold"] == _processes(keda)
    assert metric.removeprefix("binworks_") in (root / "api/metrics.py").read_text()


def _processes(found: Rendered) -> Any:
    command = found.container("worker")["command"]
    return command[command.index("--nworkers") + 1]


def test_the_chart_can_be_packed(helm: Path, tmp_path: Path) -> None:
    done = run(helm, "package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as packed:
        names = {name.removeprefix("binworks/") for name in packed.getnames()}
    assert {
        "Chart.yaml",
        "values.schema.json",
        "README.md",
        "files/alerts.yaml",
        "templates/_pods.tpl",
    } <= names
