"""The site file: what it says is taken as people mean it, and what cannot be is refused with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from binworks.deploy.site import Site
from binworks.tensors.errors import RequestError


def load(tmp_path: Path, text: str) -> Site:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return Site.load(path)


def test_an_empty_file_is_the_local_machine(tmp_path: Path) -> None:
    site = load(tmp_path, "")
    assert site.backend == "local"
    assert site == Site()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("12:00:00", 43200), ('"12:00:00"', 43200), ("43200", 43200), ("2-01:00:30", 2 * 86400 + 3630)],
)
def test_a_time_is_read_as_batch_systems_write_it_quoted_or_not(
    tmp_path: Path, written: str, seconds: int
) -> None:
    assert load(tmp_path, f"workers: {{walltime: {written}}}").workers.walltime == seconds


@pytest.mark.parametrize(("written", "size"), [("16GB", 16_000_000_000), ("16GiB", 16 << 30), ("500", 500)])
def test_memory_is_read_with_its_unit(tmp_path: Path, written: str, size: int) -> None:
    assert load(tmp_path, f"workers: {{memory: {written}}}").workers.memory == size


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("backend: slrm", "backend"),
        ("worker: {count: 3}", "worker"),
        ("workers: {count: 3, maximum: 5}", "give count, or minimum and maximum"),
        ("workers: {minimum: 3}", "minimum needs a maximum"),
        ("workers: {minimum: 3, maximum: 2}", "minimum is larger than maximum"),
        ("workers: {walltime: 0:05:00, grace: 600}", "grace must be shorter than walltime"),
        ("workers: {walltime: soon}", "workers.walltime"),
        ("workers: {ports: '80:100'}", "ports must lie in 1024:65535"),
        ("workers: {ports: '10000:10002', processes: 2}", "at least two for each worker"),
        ("workers: {ports: '10000'}", "workers.ports"),
        ("workers: {keep: ['A B']}", "workers.keep"),
        ("scheduler: {host: 10.0.0.1, interface: eth0}", "host or interface"),
        ("slurm: {partition: 'a\"b'}", "slurm.partition"),
        ("- just\n- a list", "the file"),
        ("workers: {count: 3", "YAML"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(RequestError) as raised:
        load(tmp_path, text)
    assert raised.value.code == "bad-site"
    assert named in raised.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as raised:
        Site.load(tmp_path / "none.yaml")
    assert raised.value.code == "no-such-file"
