"""Text for people, beyond the examples of its functions."""

from __future__ import annotations

from dnad_ray.text import dotted, install_command


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


def test_install_command_names_the_checkout_of_those_who_cloned(tmp_path):
    assert install_command("optuna", tmp_path) == "pip install 'dnad-ray[optuna]'"
    root = tmp_path / "my clone"
    root.mkdir()
    (root / "pyproject.toml").touch()
    assert install_command("optuna", root) == f"pip install -e '{root}[optuna]'"
