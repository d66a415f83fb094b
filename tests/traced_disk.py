"""What would be left after a power cut, worked out from the system calls of a program (``strace -f -yy``).

A file's bytes are safe once it was synced after the last write. Its name is safe once the folder was synced after
the name was given.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CALLS = (
    "write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,"
    "rename,renameat,renameat2,link,linkat,mkdir,mkdirat,unlink,unlinkat,rmdir"
)
LENGTH = 20_000
"""Bytes kept of what is written."""
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed>)(.*)$")
_HANDLE = re.compile(r"^\d+<(.*?)>(?:\(deleted\))?[,)]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_UNFINISHED = " <unfinished ...>"


def why_not() -> str | None:
    """Return why nothing can be traced here."""
    if shutil.which("strace") is None:
        return "not installed: strace (apt-get install strace)"
    probe = subprocess.run(["strace", "-f", "-yy", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return probe.stderr.strip() or None


def command(output: Path) -> list[str]:
    """Return what goes before a command to write its system calls to a file."""
    options = ["-f", "-yy", "-s", str(LENGTH), "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(output)]
    return ["strace", "--seccomp-bpf", *options]


@dataclass(frozen=True)
class Call:
    """A system call that has returned without an error.

    Parameters
    ----------
    name : str
        Of the call.
    paths : tuple of str
        Its file or socket; old and new name of a rename or a link.
    text : str
        What it wrote, as strace shows it.
    """

    name: str
    paths: tuple[str, ...]
    text: str = ""


def calls(lines: Iterable[str]) -> Iterator[Call]:
    """Give the calls in the order in which they returned."""
    begun: dict[str, str] = {}
    for line in lines:
        found = _LINE.match(line.rstrip("\n"))
        if found is None:
            continue
        process, name, opening, rest = found.groups()
        if rest.endswith(_UNFINISHED):
            begun[process] = rest.removesuffix(_UNFINISHED)
            continue
        if opening != "(":
            rest = begun.pop(process, "") + rest
        arguments, _, result = rest.rpartition(" = ")
        if result and not result.startswith(("-1", "?")):
            yield _call(name, arguments)


def _call(name: str, arguments: str) -> Call:
    if name.startswith(("rename", "link", "mkdir", "unlink", "rmdir")):
        return Call(name.removesuffix("2").removesuffix("at"), tuple(_QUOTED.findall(arguments)))
    handle = _HANDLE.match(arguments)
    text = " ".join(_QUOTED.findall(arguments)) if "write" in name or "send" in name else ""
    return Call(name, (handle.group(1),) if handle else ("",), text)


class Disk:
    """The files below a folder, and which of them a power cut would take or tear.

    Parameters
    ----------
    root : str
        The folder, which is safe itself.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.known: set[str] = set()
        self.torn: set[str] = set()
        self.nameless: set[str] = set()

    def take(self, call: Call) -> None:
        """Take note of a call."""
        if call.name in ("fsync", "fdatasync"):
            self._sync(call.paths[0])
        elif call.name in ("write", "pwrite64", "writev") and self._mine(call.paths[0]):
            self._appear(call.paths[0])
            self.torn.add(call.paths[0])
        elif call.name == "mkdir" and self._mine(call.paths[0]):
            self._appear(call.paths[0])
        elif call.name in ("unlink", "rmdir"):
            for names in (self.known, self.torn, self.nameless):
                names.discard(call.paths[0])
        elif call.name in ("rename", "link") and self._mine(call.paths[1]):
            self._move(*call.paths, keep=call.name == "link")

    def unsafe(self, prefix: str) -> list[str]:
        """Return what a power cut now would take or tear: of a file or folder, all below it, and the way to it."""
        below = prefix + "/"
        torn = {path for path in self.torn if path == prefix or path.startswith(below)}
        above = {str(path) for path in PurePosixPath(prefix).parents}
        names = {path for path in self.nameless if path == prefix or path.startswith(below) or path in above}
        return sorted(torn | names)

    def _mine(self, path: str) -> bool:
        return path.startswith(self.root + "/")

    def _appear(self, path: str) -> None:
        if path not in self.known:
            self.known.add(path)
            self.nameless.add(path)

    def _sync(self, path: str) -> None:
        self.torn.discard(path)
        self.nameless -= {name for name in self.nameless if str(PurePosixPath(name).parent) == path}

    def _move(self, old: str, new: str, *, keep: bool) -> None:
        for names in (self.known, self.torn, self.nameless):
            moved = {path for path in names if path == old or path.startswith(old + "/")}
            names |= {new + path[len(old) :] for path in moved}
            if not keep:
                names -= moved
        self.known.add(new)
        self.nameless.add(new)
