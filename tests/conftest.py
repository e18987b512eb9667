"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def pytest_configure() -> None:
    # The networks of the tests are so small that a second thread costs more than it brings.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        # Of several workers, one that got a long file last would work alone at the end.
        long = {item.path for item in items if item.get_closest_marker("ray") and item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
