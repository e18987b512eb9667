"""The command line: every user's mistake is one line on standard error and exit code 2."""

from __future__ import annotations

from dnad_ray.cli.program import cli, main

__all__ = ["cli", "main"]
