"""Every option of the command line that takes a number, with numbers that make no sense: never a traceback."""

from __future__ import annotations

import click
import pytest

from dnad_ray.cli.program import cli
from dnad_ray.errors import DataError

_AS_TEXT = {"max_macs", "max_params", "time_budget"}  # 30M, 10m
WRONG = ("0", "-1", "9" * 30, "9" * 400, "nan", "inf", "1e300", "many", "", "1.5")
CALLS = {
    "fit": ["digits", "--out", "OUT", "--no-ray"],
    "search": ["CONFIG", "--out", "OUT"],
    "sweep": ["CONFIG", "--out", "OUT"],
    "teacher": ["CONFIG", "--out", "OUT"],
    "retrain": ["RUN", "--recipe", "quick", "--no-ray"],
    "baselines": ["RUN", "--recipe", "quick", "--kinds", "random", "--no-ray"],
    "measure": ["RUN", "--repeats", "1"],
    "benchmark": ["RUN"],
    "predict": ["none.onnx", "none.png"],
    "count": ["NAME"],
    "draw": ["NAME", "--out", "cells.html"],
}


def numbers_of(command):
    """Return the options of a command that take a number."""
    return [
        option
        for option in command.params
        if isinstance(option, click.Option)
        and not option.is_flag
        and (isinstance(option.type, click.types.IntParamType | click.types.FloatParamType) or option.name in _AS_TEXT)
    ]


def test_every_command_with_a_number_is_called():
    assert {name for name, command in cli.commands.items() if numbers_of(command)} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_numbers_that_make_no_sense(name, command, config_file, run, monkeypatch, tmp_path):
    def reached(*_, **__):
        raise DataError("images", "none", "images; the work would begin here")

    for place in ("search.load_images", "fit_state.load_images", "teacher.load_images", "training.load_retrain_images"):
        monkeypatch.setattr(f"dnad_ray.commands.{place}", reached)
    words = {"CONFIG": config_file, "OUT": tmp_path / "out", "RUN": run, "NAME": "darts_v2"}
    call = [name, *(words.get(word, word) for word in CALLS[name])]
    options = numbers_of(cli.commands[name])
    for option in options:
        for value in WRONG:
            code, _, err = command(*call, f"{option.opts[0]}={value}")
            assert code in (0, 2), (option.opts, value, err)
            errors = [line for line in err.splitlines() if not line.startswith("dnad-ray: warning: ")]
            assert len(errors) == (code == 2), (option.opts, value, err)
            assert all(line.startswith("dnad-ray: error: ") for line in errors)
            assert len(err) < 2000, (option.opts, value)
            if value in ("many", "", "nan"):
                assert code == 2, (option.opts, value)
    assert not (tmp_path / "out").exists()
