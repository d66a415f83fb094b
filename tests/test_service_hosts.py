"""Parts of a service that are restarted or cut off, one after another, with TLS: nothing is lost.

What takes longer is in ``hosts/cuts.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_contract import reach
from parted_service import LOOPBACK, Apart, apart, restart, rightful

from binworks.service.up import choose_port

pytestmark = pytest.mark.faults


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Apart]:
    """Run a service with TLS on this machine, with two worker hosts."""
    port, dashboard_port, api_port = (choose_port(LOOPBACK, 0) for _ in range(3))
    with apart(tmp_path, host=LOOPBACK, port=port, dashboard_port=dashboard_port, api_port=api_port) as made:
        made.parts.scheduler()
        for name in ("left", "right"):
            made.parts.worker(name, host=LOOPBACK)
        made.parts.serve("driver", "binworks.service.driver")
        yield made


def test_certificates_are_renewed_while_a_job_runs(here: Apart, tmp_path: Path) -> None:
    job = here.submit(0.6, "renewed")
    reach(lambda: here.done(job) >= 3, 60)
    here.parts.certificates.renew()
    for keeper in here.parts.keepers[1:]:  # workers and driver with new ones, the scheduler with its old one
        restart(keeper)
        before = here.done(job)
        reach(lambda before=before: here.done(job) > before, 60)
    with rightful(here.parts.address, here.parts.certificates) as client:
        reach(lambda: len(client.scheduler_info()["workers"]) == 2)
    restart(here.parts.keepers[0])
    here.check(job, tmp_path / "serial")
    with rightful(here.parts.address, here.parts.certificates) as client:
        reach(lambda: len(client.scheduler_info()["workers"]) == 2)
