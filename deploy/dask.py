"""``python -m binworks.deploy.dask scheduler|worker ...``: Dask's own program, whose TLS connections end one by one.

Dask ends connections without a word of farewell. From OpenSSL 3.4 on, Python (3.12.9 or newer, cpython issue 148594)
takes the next connection on which nothing waits to be read for the broken one, and closes that, too: each worker
that goes takes others with it. Contexts that are told that such an end is no error do not start this. Nothing is lost
by it: Dask's messages say how long they are, so one that is cut short is noticed.
"""

from __future__ import annotations

import importlib
import ssl
import sys
from typing import Any

PROGRAMS = ("scheduler", "worker")


def accept_ends(security: Any) -> None:
    """Let all TLS contexts that Dask makes take the end of a connection for an end.

    Parameters
    ----------
    security : type
        ``distributed.Security``.
    """
    make = security._get_tls_context

    def make_tolerant(self: Any, *arguments: Any, **options: Any) -> Any:
        context = make(self, *arguments, **options)
        if context is not None:
            context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        return context

    security._get_tls_context = make_tolerant


# when it is imported, too: so do first of all the processes that a nanny spawns
accept_ends(importlib.import_module("distributed.security").Security)


def main() -> None:
    """Be Dask's program."""
    if sys.argv[1:2] not in ([name] for name in PROGRAMS):
        raise SystemExit(f"expected one of {', '.join(PROGRAMS)}")
    importlib.import_module(f"distributed.cli.dask_{sys.argv.pop(1)}").main()


if __name__ == "__main__":
    main()
