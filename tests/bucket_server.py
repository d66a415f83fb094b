"""A real S3 server on this machine, and buckets in it: moto keeps the condition of conditional puts."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

SECRET = "moto-takes-any-secret"
START_SECONDS = 60


class BucketServer:
    """``python -m moto.server`` on a free port; it forgets all when it ends."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("w") as output:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self.url = self._wait()

    def _wait(self) -> str:
        end = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", self._log.read_text()):
                return found.group(1)
            time.sleep(0.05)
        raise AssertionError(f"the S3 server did not start: {self._log.read_text()}")

    @property
    def environment(self) -> dict[str, str]:
        """What a process must know to use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def new_bucket(self) -> str:
        """Make a bucket; return its address with a prefix."""
        name = f"test-{uuid.uuid4().hex}"
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")):
            return f"s3://{name}/some/prefix"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
