"""The cluster of a sweep, on a real Ray: what it cannot give is refused before anything is trained or written."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray


def test_sweep_asking_for_too_much_is_refused_within_seconds(sweep, sweep_file, tmp_path):
    out = tmp_path / "demo"
    config = sweep_file({"sweep.cpus_per_trial": 4096, "distill.kind": "features", "distill.teacher.epochs": 10_000})
    code, said, err, seconds = sweep(config, out=out).wait()
    assert code == 2, (said, err)
    assert err.startswith("dnad-ray: error: sweep.cpus_per_trial: got 4096.0; allowed: at most ")
    assert err.count("\n") == 1
    assert seconds < 90
    assert not out.exists()


def test_sweep_without_the_cluster_it_is_to_join_is_refused_within_seconds(sweep, sweep_file, tmp_path):
    with socket.socket() as bound:  # nobody listens on this port, and nobody else gets it
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        out = tmp_path / "demo"
        code, said, err, seconds = sweep(sweep_file({}), "--address", address, out=out).wait()
    assert code == 2, (said, err)
    assert err.startswith(f"dnad-ray: error: --address: got '{address}'; allowed: a Ray cluster that answers")
    assert err.count("\n") == 1
    assert seconds < 60
    assert not out.exists()
    assert Path.cwd() == tmp_path
