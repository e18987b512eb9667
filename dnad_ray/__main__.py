"""``python -m dnad_ray``, the same as the console script."""

from __future__ import annotations

from dnad_ray.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
