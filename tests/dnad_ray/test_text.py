"""Text for people, beyond the examples of its functions."""

from __future__ import annotations

from dnad_ray.text import dotted


def test_dotted_keeps_what_is_to_stay_whole_and_what_is_empty():
    data = {"sweep": {"grid": {"shrink.rate": [0.1]}, "ranges": {}, "num_trials": None}, "seed": 3, "grid": {"a": 1}}
    assert dotted(data) == {
        "sweep.grid.shrink.rate": [0.1],
        "sweep.ranges": {},
        "sweep.num_trials": None,
        "seed": 3,
        "grid.a": 1,
    }
    assert dotted(data, whole=("sweep.grid",)) == {
        "sweep.grid": {"shrink.rate": [0.1]},
        "sweep.ranges": {},
        "sweep.num_trials": None,
        "seed": 3,
        "grid.a": 1,
    }
