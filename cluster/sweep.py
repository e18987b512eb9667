"""Entry point of a sweep on a cluster, for `ray submit` and `ray job submit`: the arguments of `dnad-ray sweep`.

    ray submit cluster/aws.yaml cluster/sweep.py demo --out s3://BUCKET/demo
    ray job submit --working-dir cluster -- python sweep.py demo --out s3://BUCKET/demo

Both from the root of the checkout. The exit code is that of the command, and the cluster is the one that this process
runs in.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run `dnad-ray sweep` with the arguments of this process, on the cluster around it."""
    # `ray submit` starts this with the environment of a login and not with that of Ray on the node.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A job is told where its cluster is; a script that was submitted stands beside it on the head node.
    os.environ.setdefault("RAY_ADDRESS", "auto")
    # Said by --resume hints and read by click: the command as somebody on this node would type it.
    sys.argv = ["dnad-ray", "sweep", *sys.argv[1:]]

    from dnad_ray.cli import main as command  # noqa: PLC0415 - what is set above must be set before Ray is imported

    command()


if __name__ == "__main__":
    main()
