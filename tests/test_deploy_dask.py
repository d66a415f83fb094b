"""Dask's programs are run so that the end of one TLS connection is nothing to the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Security

from binworks.deploy.tls import Certificates

SHOW = """
import ssl, sys
from binworks.deploy import dask


def told():
    from distributed import Security
    own = Security(tls_ca_file=sys.argv[1], tls_worker_cert=sys.argv[2], tls_worker_key=sys.argv[3])
    contexts = [own.get_listen_args("worker")["ssl_context"], own.get_connection_args("worker")["ssl_context"]]
    print([bool(context.options & ssl.OP_IGNORE_UNEXPECTED_EOF) for context in contexts])

told()
"""


def test_all_contexts_that_dask_makes_are_told_that_an_end_is_no_error(tmp_path: Path) -> None:
    own = Certificates.make(tmp_path / "tls")
    files = [str(own.ca("worker")), str(own.cert("worker")), str(own.key("worker"))]
    done = subprocess.run([sys.executable, "-c", SHOW, *files], capture_output=True, text=True, check=True)
    assert done.stdout == "[True, True]\n"


def test_without_certificates_there_is_no_context() -> None:
    assert Security().get_connection_args("client").get("ssl_context") is None


@pytest.mark.parametrize("program", ["scheduler", "worker"])
def test_it_is_dasks_own_program(program: str) -> None:
    command = [sys.executable, "-m", "binworks.deploy.dask", program, "--help"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"}
    )
    assert "--tls-ca-file" in done.stdout


def test_no_other_program_is_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "binworks.deploy.dask", "config"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "scheduler, worker" in done.stderr
