"""What helm renders of the chart, looked at as Kubernetes would; the fixture `helm` is in `helm_fixture`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent.parent / "helm/binworks"
EXAMPLES = CHART.parent / "examples"
RELEASE, NAMESPACE = "wmass", "physics"
EXTENSIONS = ("keda.sh/v1alpha1", "cert-manager.io/v1", "monitoring.coreos.com/v1")
Manifest = dict[str, Any]


def run(helm: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm in a home of its own."""
    home = {
        name: str(helm.parent / "home") for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
    }
    command = [str(helm), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **home})


class Rendered:
    """What helm renders, looked at as Kubernetes would.

    Parameters
    ----------
    text : str
        Of ``helm template``.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.all: list[Manifest] = [document for document in yaml.safe_load_all(text) if document]

    def of(self, kind: str) -> list[Manifest]:
        """Return the manifests of a kind."""
        return [manifest for manifest in self.all if manifest["kind"] == kind]

    def names(self, kind: str) -> set[str]:
        """Return their names."""
        return {manifest["metadata"]["name"] for manifest in self.of(kind)}

    def get(self, kind: str, name: str) -> Manifest:
        """Return one of them; the name is without the release's."""
        found = [m for m in self.of(kind) if m["metadata"]["name"] in {name, f"{RELEASE}-binworks{name}"}]
        (manifest,) = found
        return manifest

    @cached_property
    def pods(self) -> dict[str, Manifest]:
        """The pod templates by component."""
        label = "app.kubernetes.io/component"
        return {d["metadata"]["labels"][label]: d["spec"]["template"] for d in self.of("Deployment")}

    def containers(self) -> Iterator[tuple[Manifest, Manifest]]:
        """Yield each pod template with each of its containers, those that come first included."""
        for pod in self.pods.values():
            for container in containers_of(pod):
                yield pod, container

    def container(self, name: str) -> Manifest:
        """Return a container by its name."""
        (found,) = (container for _, container in self.containers() if container["name"] == name)
        return found


def containers_of(pod: Manifest) -> Iterable[Manifest]:
    """Return the containers of a pod template, those that come first included."""
    return (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])


def render(helm: Path, *given: str, version: str = "1.33", extensions: bool = True) -> Rendered:
    """Return what the chart is for a cluster."""
    known = [word for api in EXTENSIONS if extensions for word in ("--api-versions", api)]
    where = ["--namespace", NAMESPACE, "--kube-version", version]
    done = run(helm, "template", RELEASE, CHART, *where, *known, *given)
    assert done.returncode == 0, done.stderr
    return Rendered(done.stdout)


def refused(helm: Path, *given: str, extensions: bool = True) -> str:
    """Return why helm refuses."""
    known = [word for api in EXTENSIONS if extensions for word in ("--api-versions", api)]
    done = run(helm, "template", RELEASE, CHART, *known, *given)
    assert done.returncode != 0, "it was not refused"
    return done.stderr


def setting(*values: str) -> list[str]:
    """Return helm's options for ``name=value`` pairs."""
    return [word for value in values for word in ("--set", value)]
