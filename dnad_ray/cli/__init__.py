"""The command line. A mistake of the user is reported as one line on standard error, with exit code 2."""

from __future__ import annotations

from dnad_ray.cli.program import cli, main

__all__ = ["cli", "main"]
