"""Runs one command, and sees that nothing of it outlives the process that asked for it, however that one ended.

A process that is killed (`kill -9`, out of memory) can end nobody. So `flux up` starts each of its servers through one of
these: it has a session of its own, so that no Ctrl+C and no closing terminal reaches it, its command has a process group of
its own, and it ends that group, whatever the command has started in it, as soon as it is asked to, the command ends, or its
parent is gone. That it polls for the parent works on every system; `PR_SET_PDEATHSIG` is Linux's alone, follows the
*thread* that started it, and is not passed on to grandchildren.

It is run by its path (`python -I -S supervisor.py PARENT GRACE COMMAND...`), with nothing but the standard library:
importing the package would take a second for each server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

_INTERVAL = 0.2
#: With nobody left who waits for a good end, and ports that whoever starts again needs.
_GRACE_OF_ORPHANS = 3.0
#: A killed process can stay in the system's tables for as long as nobody takes notice: no reason to wait for ever.
_GRACE_OF_THE_KILLED = 5.0


def run(parent: int, grace: float, command: Sequence[str]) -> int:
    """Run a command until it ends, or must; return its exit code once its process group is empty.

    Args:
        parent: the process to live with.
        grace: seconds between asking the group to end and killing it.
        command: what to run.

    """
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    # Functions, not SIG_IGN: what is ignored would be ignored by everything that is started here, too.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask)
    child = subprocess.Popen(command, process_group=0)
    while child.poll() is None and not asked and os.getppid() == parent:
        time.sleep(_INTERVAL)
    _end(child, grace if os.getppid() == parent else min(grace, _GRACE_OF_ORPHANS))
    code = child.poll()
    return 1 if code is None else code if code >= 0 else 128 - code


def _end(child: subprocess.Popen[bytes], grace: float) -> None:
    """End a child's process group: ask it to, wait, kill what is left."""
    left = _signal(child, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = _signal(child, 0)
    deadline = time.monotonic() + _GRACE_OF_THE_KILLED
    while left and time.monotonic() < deadline:
        left = _signal(child, signal.SIGKILL)  # again and again: one may just have been started by another
        time.sleep(0.05)


def _signal(child: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal (0: none) to everything in a child's group; tell whether there was anything."""
    child.poll()  # one that has ended counts until that was noticed
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses where only ended processes are left
        return False
    return True


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
