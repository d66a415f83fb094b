"""Where else a file lies: sites that hold the same files under other prefixes."""

from __future__ import annotations

from collections.abc import Sequence


def turn(path: str, groups: Sequence[Sequence[str]], tries: int) -> str:
    """Return where to look for a file at the next try.

    Parameters
    ----------
    path : str
        As it was asked for.
    groups : sequence of sequences of str
        Prefixes that hold the same files; one group each.
    tries : int
        How often it could not be read. The first look is where it was asked for, then each replica has its turn.
    """
    for prefixes in groups:
        for here, prefix in enumerate(prefixes):
            if path.startswith(prefix):
                return prefixes[(here + tries) % len(prefixes)] + path.removeprefix(prefix)
    return path


def several(path: str | None, groups: Sequence[Sequence[str]]) -> bool:
    """Return whether other sites should have a file, too."""
    return path is not None and turn(path, groups, 1) != path
