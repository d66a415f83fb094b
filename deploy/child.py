"""``python -m binworks.deploy.child PARENT COMMAND ...``: become the command, and die when the parent does.

The kernel kills it, so it works however the parent ends. Not gently: a nanny that is asked to end while its worker
starts waits for a scheduler that is gone, and nothing here needs a gentle end. Where the kernel cannot (not Linux),
the command lives on until it is stopped.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replace this process by the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            raise SystemExit(1)
    os.execvp(command[0], command)  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
