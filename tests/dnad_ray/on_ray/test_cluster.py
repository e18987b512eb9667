"""What happens where Ray does not start."""

from __future__ import annotations

import pytest
import ray

from dnad_ray.config.run import RunConfig
from dnad_ray.errors import ResourceError
from dnad_ray.on_ray.cluster import cluster


def test_cluster_that_starts_too_slowly_is_an_error_of_one_line(monkeypatch):
    def too_slow(**_):
        raise Exception("The current node timed out during startup.\nThe GCS has become overloaded.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(ResourceError) as caught, cluster(RunConfig(), None):
        pass
    assert str(caught.value).startswith("Ray on this machine: got 'The current node timed out during startup. The GCS")
    assert "call again when the machine is less busy" in str(caught.value)
    assert "--address" not in str(caught.value)  # nobody gave one
    assert "\n" not in str(caught.value)
    refused = pytest.raises(
        ResourceError, match=r"^--address: got 'auto'; allowed: a Ray cluster that answers \(The cur"
    )
    with refused, cluster(RunConfig(), "auto"):
        pass
