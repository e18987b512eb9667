"""What ``python -m dnad_ray`` does, in a fork of a process that has loaded its modules; run by ``conftest.Started``.

To load torch, Ray, pandas and plotly takes several CPU seconds, in every one of dozens of commands.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import Any


def run(call: dict[str, Any]) -> None:
    """Run a command.

    Args:
        call: Its ``arguments``, ``folder``, ``environment`` and ``threads``, and files for ``out`` and ``err``.
    """
    # A shell starts what runs in the background, perhaps these tests, deaf to interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()  # so that Ctrl-C can be pressed: all processes of a terminal get it
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    for number, path in ((1, call["out"]), (2, call["err"])):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["dnad-ray", *call["arguments"]]

    import torch

    torch.set_num_threads(call["threads"])  # with another number the bits are others

    from dnad_ray.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()


if __name__ == "__main__":
    run(globals()["call"])  # runpy gave it
