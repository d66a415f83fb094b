"""The fixture ``bucket_url``: a test module gets it by ``pytest_plugins = ["bucket_fixture"]``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from bucket_server import BucketServer


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    server = BucketServer(tmp_path_factory.mktemp("moto") / "log")
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        server.close()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture
def bucket_url(bucket_server: BucketServer) -> str:
    return bucket_server.new_bucket()
