"""Several hosts on one machine: network namespaces with addresses of their own, whose links can be cut.

The namespaces have no names. Each is held by a process that dies with this one, so that nothing is left behind however
a test ends, and several networks may exist at once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

HOLD = "echo held; exec sleep infinity"
BRIDGE, CARD = "switch", "eth0"


def why_not() -> str | None:
    """Return why there can be no namespaces here."""
    missing = [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install util-linux iproute2)"
    if os.geteuid() != 0:
        return "only root can make a network namespace"
    # a machine may allow namespaces, and know no bridge
    tried = ["unshare", "--net", "ip", "link", "add", BRIDGE, "type", "bridge"]
    probe = subprocess.run(tried, capture_output=True, text=True)
    return f"no bridge can be made: {probe.stderr.strip()}" if probe.returncode else None


@dataclass(frozen=True)
class Space:
    """A network namespace.

    Parameters
    ----------
    holder : int
        Number of the process that holds it.
    """

    holder: int

    @property
    def enter(self) -> list[str]:
        """What stands before a command that runs there."""
        return ["nsenter", f"--net=/proc/{self.holder}/ns/net"]

    def run(self, *command: str) -> str:
        """Return what a command prints that is run there."""
        return subprocess.run([*self.enter, *command], check=True, capture_output=True, text=True).stdout

    def python(self, code: str) -> str:
        """Return what Python code prints that is run there."""
        return self.run(sys.executable, "-c", code)


@dataclass(frozen=True)
class Host:
    """A host of a network.

    Parameters
    ----------
    space : Space
    address : str
    port : str
        Its plug at the switch.
    switch : Space
    """

    space: Space
    address: str
    port: str
    switch: Space

    @property
    def enter(self) -> list[str]:
        """What stands before a command that runs on this host."""
        return self.space.enter

    def cut(self) -> None:
        """Pull the plug: packets are lost, and neither end is told."""
        self.switch.run("ip", "link", "set", self.port, "down")

    def join(self) -> None:
        """Put the plug back."""
        self.switch.run("ip", "link", "set", self.port, "up")


@contextmanager
def network(count: int) -> Iterator[list[Host]]:
    """Give hosts at one switch."""
    with ExitStack() as stack:
        switch = stack.enter_context(_space())
        switch.run("ip", "link", "add", BRIDGE, "type", "bridge")
        switch.run("ip", "link", "set", BRIDGE, "up")
        made = []
        for number in range(1, count + 1):
            space = stack.enter_context(_space())
            made.append(_plugged(switch, space, f"host{number}", f"10.77.0.{number}"))
        yield made


def _plugged(switch: Space, space: Space, port: str, address: str) -> Host:
    peer = ["type", "veth", "peer", "name", CARD, "netns", str(space.holder)]
    switch.run("ip", "link", "add", port, *peer)
    switch.run("ip", "link", "set", port, "master", BRIDGE, "up")
    space.run("ip", "address", "add", f"{address}/24", "dev", CARD)
    space.run("ip", "link", "set", CARD, "up")
    return Host(space, address, port, switch)


@contextmanager
def _space() -> Iterator[Space]:
    dies_with_us = [sys.executable, "-m", "binworks.deploy.child", str(os.getpid())]
    held = [*dies_with_us, "unshare", "--net", "sh", "-c", HOLD]
    with subprocess.Popen(held, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            space = Space(holder.pid)
            space.run("ip", "link", "set", "lo", "up")
            yield space
        finally:
            holder.kill()
