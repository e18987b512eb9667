"""Usage statistics of third parties: none is sent unless the user turns it on (standard library only)."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["OFF", "no_usage_statistics"]

OFF: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}
"""Environment variables that keep a library from reporting about its users, and their values."""


def no_usage_statistics() -> None:
    """Turn usage statistics off, before the libraries are imported; what the user has set stays as it is."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
