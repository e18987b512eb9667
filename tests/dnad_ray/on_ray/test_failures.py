"""What breaks under a search: the disk is full, a checkpoint is damaged. Nothing is lost, and the end is the same.

Killed, raising, hanging and interrupted trials are in ``test_launch``, diverging ones in ``test_trial``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dnad_ray.config.run import config_from_dict, config_to_dict
from dnad_ray.data.loading import load_data
from dnad_ray.run_folder.checkpoints import save_checkpoint
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.writing import create_run
from dnad_ray.runtime.stopping import StopRequest
from dnad_ray.search.loop import SearchState, search
from dnad_ray.search.prepare import PreparedRun, run_search
from dnad_ray.trials.spec import TrialSpec

PRIVATE_MOUNT = ["unshare", "--user", "--map-root-user", "--mount"]


def stopped_after(num_steps):
    left = iter(range(num_steps))
    return lambda: StopRequest("enough") if next(left, None) is None else None


def flip_a_bit(folder, before):
    content = bytearray((folder / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "state.pt").write_bytes(content)


def tear(folder, before):
    content = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(content[: len(content) // 2])


def merge(folder, before):
    """As Tune does: what a retry uploads comes into the folder that an earlier attempt left torn."""
    shutil.copy(before / "state.pt", folder / "state.pt")
    (folder / "left-over.bin").write_bytes(b"of the earlier attempt")


def without_manifest(folder, before):
    (folder / "manifest.json").unlink()


def of_another_search(folder, before):
    """Whole, and nothing that this search could go on from."""
    save_checkpoint(folder, {"step": 1}, 99)


@pytest.mark.parametrize("damage", [flip_a_bit, tear, merge, without_manifest], ids=lambda damage: damage.__name__)
def test_search_with_a_damaged_newest_checkpoint_goes_on_from_the_one_before(
    damage, tiny, digits, timeless, tmp_path, quiet_board, monkeypatch
):
    folder = create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")
    spec, prepared = TrialSpec("t00", {"seed": 0}, tiny()), PreparedRun(digits, None)
    for num_steps in (7, 4):
        run_search(spec, prepared, folder, quiet_board, stop=stopped_after(num_steps))
    before, newest = sorted((folder / "trials" / "t00" / "checkpoints").iterdir())
    assert newest.name == "00000011"
    damage(newest, before)
    early = {row["step"] for row in read_run(folder).snapshots}
    begun = []
    resume = SearchState.resume
    monkeypatch.setattr(
        SearchState, "resume", lambda saved, *a, **k: begun.append(saved["step"]) or resume(saved, *a, **k)
    )
    run_search(spec, prepared, folder, quiet_board)
    assert begun == [int(before.name)]
    contents = read_run(folder)
    assert timeless(contents.snapshots) == timeless(search(SearchState.start(tiny(), digits, run="demo", trial="t00")))
    steps = [row["step"] for row in contents.snapshots]
    assert len(steps) == len(set(steps)) > len(early) >= 1
    assert contents.status["t00"]["state"] == "finished"


def test_search_with_a_checkpoint_of_another_search_is_refused_in_words(command, config_file, tmp_path):
    out = tmp_path / "demo"
    create_run(out, config_to_dict(_configuration(config_file)), "0.1")
    of_another_search(out / "trials" / "t00" / "checkpoints" / "00000099", None)
    code, said, err = command("search", config_file, "--out", out, "--resume")
    assert (code, err.count("\n")) == (2, 1), (said, err)
    assert err == (
        "dnad-ray: error: checkpoint: got \"the key 'alive' is missing\"; allowed: a state of this very search\n"
    )


def _configuration(file):
    from dnad_ray.commands.options import read_config

    return read_config(str(file))


def can_mount() -> bool:
    script = 'mount -t tmpfs -o size=4k tmpfs "$0"'
    try:
        result = subprocess.run([*PRIVATE_MOUNT, "sh", "-c", script, "/mnt"], check=False, capture_output=True)
    except OSError:
        return False
    return result.returncode == 0


def fill_up(disk, records):
    """A shell command that takes all space of a disk once two records lie there; the shell looks without a process."""
    there = f'two_are_there() {{ set -- {disk}/{records}; test -e "$1" -a $# -ge 2; }}'
    return f"{there}; (until two_are_there; do sleep 0.05; done; cat /dev/zero) > {disk}/full 2>/dev/null"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="this machine lets no user mount a small file system of their own")
def test_sweep_on_a_full_disk_says_so_and_goes_on_when_there_is_room(config_file, tmp_path):
    settings = {"shrink.gamma_growth": 1.5, "shrink.floor.operations": 4, "train.epochs": 8}
    settings |= {"sweep.cpus_per_trial": 1, "sweep.grid": "{shrink.rate: [0.05]}"}
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    kept.mkdir()
    sweep = [sys.executable, "-m", "dnad_ray", "sweep", str(config_file), "--out", str(small / "demo"), "--quiet"]
    sweep += [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    script = f"""
        mount -t tmpfs -o size=300m tmpfs {small}
        {fill_up(small, "demo/trials/*/snapshots/*")} &
        {shlex.join(sweep)}
        code=$?
        kill $! 2>/dev/null
        rm {small}/full
        cp -r {small}/demo {kept}/before
        {shlex.join(sweep)} --resume > /dev/null && cp -r {small}/demo {kept}/after
        exit $code
    """
    result = subprocess.run(
        [*PRIVATE_MOUNT, "sh", "-c", script], capture_output=True, text=True, check=False, timeout=400, cwd=Path.cwd()
    )
    assert result.returncode == 1, result
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"dnad-ray: error: free space at {small}/demo: got '0 MiB'")
    assert "; to continue: dnad-ray sweep " in last
    before, after = kept / "before", kept / "after"
    early = {file.relative_to(before): file.read_bytes() for file in before.glob("trials/*/snapshots/*")}
    assert len(early) >= 2
    assert not list(before.glob("trials/**/.*"))  # nothing half-written is left
    contents = read_run(after)
    assert contents.problems == ()
    assert {entry["state"] for entry in contents.status.values()} == {"finished"}
    assert {row["trial"] for row in contents.snapshots if row["kind"] == "final"} == {"t00"}
    assert all((after / name).read_bytes() == content for name, content in early.items())


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="this machine lets no user mount a small file system of their own")
def test_search_on_a_full_disk_says_so_and_goes_on_when_there_is_room(config_file, timeless, tmp_path):
    # Most of its steps come after the second snapshot, when the disk fills up.
    longer = {"shrink.gamma_growth": 1.5, "shrink.rate": 0.05, "shrink.floor.operations": 4, "train.epochs": 8}
    settings = [text for key, value in longer.items() for text in ("--set", f"{key}={value}")]
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    search_here = f"{sys.executable} -m dnad_ray search {config_file} {' '.join(settings)} --out {small}"
    script = f"""
        mount -t tmpfs -o size=16m tmpfs {small}
        {fill_up(small, "demo/trials/t00/snapshots/*")} &
        {search_here}/demo
        code=$?
        df --output=avail {small} | tail -1
        rm {small}/full
        cp -r {small} {kept}
        {search_here}/demo --resume > /dev/null && cp -r {small} {kept}/later
        exit $code
    """
    result = subprocess.run(
        [*PRIVATE_MOUNT, "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=560,
        cwd=Path.cwd(),
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # with another number the bits are others
    )
    assert result.returncode == 1, result
    assert int(result.stdout.split()[-1]) <= 4  # KiB: the page of the lock, which was given back at the end
    *warned, last = result.stderr.splitlines()
    assert last.startswith("dnad-ray: error: space on the disk of: got ")
    # What only shows the run has no room either; that is no reason to end it.
    assert all(line.startswith("dnad-ray: warning: ") and "the run goes on" in line for line in warned)
    again = f"dnad-ray search {config_file} {' '.join(settings)} --out {small}/demo --resume"
    assert result.stderr.endswith(f"; to continue: {again}\n")
    out, later = kept / "demo", kept / "later"
    early = {(file.name, file.read_bytes()) for file in out.glob("trials/t00/snapshots/*")}
    assert len(early) >= 2
    assert not list(out.rglob(".*"))  # nothing half-written is left
    assert early < {(file.name, file.read_bytes()) for file in later.glob("demo/trials/t00/snapshots/*")}
    contents = read_run(later / "demo")
    config = config_from_dict(contents.config)
    undisturbed = search(SearchState.start(config, load_data(config.data), run="demo", trial="t00"))
    assert timeless(contents.snapshots) == timeless(undisturbed)
