"""Paths of a run folder: names that lead out of it are refused, whoever writes or reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder import layout

RUN = Path("/runs/demo")
UNSAFE = ("", ".", "..", "../t00", "a/b", "a..b", ".hidden", "a b", "t" * 101)


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize(
    "path",
    [
        layout.trial_folder,
        layout.snapshots_folder,
        layout.checkpoints_folder,
        layout.history_file,
        layout.status_file,
        layout.placement_file,
        layout.job_folder,
        layout.job_status_file,
        layout.result_file,
        layout.genotype_file,
        layout.measured_file,
        layout.baseline_file,
    ],
)
def test_layout_refuses_names_that_are_no_part_of_a_path(path, name):
    with pytest.raises(RunFolderError, match="1 to 100 letters"):
        path(RUN, name)


def test_layout_is_that_of_every_run_so_far():
    assert layout.snapshot_file(RUN, "t00", 12) == RUN / "trials/t00/snapshots/00000012.json"
    assert layout.weights_file(RUN, "t00", 12) == RUN / "trials/t00/weights/00000012.safetensors"
    assert layout.checkpoints_folder(RUN, "t00") == RUN / "trials/t00/checkpoints"
    assert layout.status_file(RUN, "t00") == RUN / "trials/t00/status.json"
    assert layout.job_checkpoints_folder(RUN, "ab12") == RUN / "retrained/ab12/checkpoints"
    assert layout.result_file(RUN, "ab12") == RUN / "retrained/ab12/result.json"
    assert layout.genotype_file(RUN, "0f3a") == RUN / "genotypes/0f3a.json"
    assert layout.measured_file(RUN, "0f3a-7") == RUN / "measured/0f3a-7.json"
    assert layout.baseline_file(RUN, "darts-1") == RUN / "baselines/darts-1.json"
    assert layout.teacher_folder(RUN) == RUN / "teacher"
