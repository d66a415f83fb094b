"""Parts of a service that are restarted or cut off, one after another, with TLS: nothing is lost.

What takes longer is in ``hosts/cuts.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_contract import reach
from hosts.network import why_not
from hosts.spread import seconds, spread_out
from parted_service import LOOPBACK, Apart, apart, restart, rightful

from binworks.service.up import choose_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]  # half a minute each on a quiet machine


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


@pytest.mark.slow
def test_certificates_are_renewed_while_a_job_runs(here: Apart, tmp_path: Path) -> None:
    head, left, right, driver = here.parts.keepers
    job = here.submit(0.4, "renewed")
    reach(lambda: here.done(job) >= 2, 120)
    here.parts.certificates.renew()
    with rightful(here.parts.address, here.parts.certificates) as client:
        before = set(client.scheduler_info()["workers"])
        restart(left)  # it has a new one, and the scheduler its old one
        reach(lambda: len(now := set(client.scheduler_info()["workers"])) == 2 and now != before, 120)
    restart(head)
    restart(driver)
    restart(right)
    here.check(job, tmp_path / "serial")
    with rightful(here.parts.address, here.parts.certificates) as client:
        reach(lambda: len(client.scheduler_info()["workers"]) == 2, 120)


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_the_units_of_a_host_that_is_cut_off_are_done_by_another_and_it_comes_back(tmp_path: Path) -> None:
    with spread_out(tmp_path, driver_alone=False) as spread:
        gone, stays = spread.workers
        job = spread.at_work(1.0, "cut")
        assert spread.ready()
        removed, registered = spread.removed(), spread.registered()
        gone.cut()
        noticed = seconds(lambda: spread.removed() > removed, 120)
        spread.apart.check(job, tmp_path / "serial")
        assert spread.apart.done_at(job, stays.address) > spread.apart.done_at(job, gone.address)
        gone.join()
        back = seconds(lambda: spread.registered() > registered, 120)
        again = spread.at_work(0.1, "after")
        spread.apart.check(again, tmp_path / "again")
        assert "handshake failed" not in spread.apart.parts.log("scheduler")
    print(f"\na worker's host is cut off: noticed after {noticed:.1f} s, back {back:.1f} s after the link")
