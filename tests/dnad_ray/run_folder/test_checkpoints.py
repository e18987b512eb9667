"""Checkpoints are whole or not used, whatever happened to the files."""

from __future__ import annotations

import hashlib
import json
import os
import random

import numpy as np
import pytest
import torch

from dnad_ray.run_folder import checkpoints as checkpoint_module
from dnad_ray.run_folder.checkpoints import CheckpointKeeper, load_newest, prune_checkpoints, save_checkpoint
from dnad_ray.runtime.random_states import random_states, restore_random_states
from dnad_ray.storage.checksums import parse_record
from dnad_ray.storage.files import write_json


@pytest.fixture
def two(tmp_path):
    """Two intact checkpoints, of steps 5 and 10; the newer one first in order of names."""
    older, newer = tmp_path / "b", tmp_path / "a"
    save_checkpoint(older, {"value": 5, "tensor": torch.arange(5)}, 5)
    save_checkpoint(newer, {"value": 10, "tensor": torch.arange(10)}, 10)
    return older, newer


def value_of(*folders):
    state = load_newest(folders)
    return None if state is None else state["value"]


def seal(folder, content):
    """Replace the state and make the manifest match it, as somebody with bad intentions would."""
    (folder / "state.pt").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["state.pt"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_json(folder / "manifest.json", manifest)


def test_checkpoint_highest_step_is_the_newest_whatever_the_names(two):
    assert value_of(*two) == value_of(*reversed(two)) == 10
    assert torch.equal(load_newest(two)["tensor"], torch.arange(10))


def test_checkpoint_manifest_lists_step_size_and_sum(two):
    content = (two[1] / "state.pt").read_bytes()
    assert parse_record((two[1] / "manifest.json").read_bytes(), "manifest") == {
        "schema": 2,
        "step": 10,
        "files": {"state.pt": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}},
    }
    assert {file.name for file in two[1].iterdir()} == {"manifest.json", "state.pt"}


def test_checkpoint_none_where_there_is_none(tmp_path):
    assert load_newest([]) is None
    (tmp_path / "empty").mkdir()
    assert load_newest([tmp_path / "empty", tmp_path / "missing"]) is None


def torn(folder):
    os.truncate(folder / "state.pt", 100)


def flipped(folder):
    content = bytearray((folder / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "state.pt").write_bytes(content)


def without_state(folder):
    (folder / "state.pt").unlink()


def without_manifest(folder):
    (folder / "manifest.json").unlink()


def of_another_schema(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**manifest, "schema": 1})


def torn_manifest(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def odd_manifest(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"step": 10', '"step": Infinity'))


def listless_manifest(folder):
    (folder / "manifest.json").write_text("[1, 2]")


def binary_manifest(folder):
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00")


def no_dictionary(folder):
    torch.save([1, 2], folder / "state.pt")
    seal(folder, (folder / "state.pt").read_bytes())


def no_torch_file(folder):
    seal(folder, b"PK\x03\x04 this is no archive")


def empty_file(folder):
    seal(folder, b"")


@pytest.mark.parametrize(
    "damage",
    [
        *(torn, flipped, without_state, without_manifest, of_another_schema, torn_manifest, odd_manifest),
        *(listless_manifest, binary_manifest, no_dictionary, no_torch_file, empty_file),
    ],
    ids=lambda damage: damage.__name__,
)
def test_checkpoint_damaged_one_is_passed_over(damage, two):
    older, newer = two
    damage(newer)
    assert value_of(older, newer) == 5
    assert value_of(newer) is None


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_checkpoint_hostile_pickle_is_never_executed(two, tmp_path, monkeypatch):
    older, newer = two
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # re-opens torch's default, not what is asked for
    trap = tmp_path / "broken-in"
    torch.save({"value": Hostile(str(trap))}, newer / "state.pt")
    for content in ((newer / "state.pt").read_bytes(), f"cos\nmkdir\n(V{trap}\ntR.".encode()):
        seal(newer, content)
        assert value_of(older, newer) == 5
        assert not trap.exists()


def test_checkpoint_is_none_while_it_is_overwritten(two, monkeypatch):
    older, newer = two

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_module, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(newer, {"value": 20}, 20)
    assert value_of(older, newer) == 5  # the new state under the old manifest would be neither of the two


def test_checkpoint_merged_into_a_torn_one_is_whole(two):
    torn(two[1])
    save_checkpoint(two[1], {"value": 11}, 11)
    assert value_of(*two) == 11


def test_prune_checkpoints_keeps_the_newest_two(tmp_path):
    for step in (8, 16, 24, 32):
        save_checkpoint(tmp_path / f"{step:08d}", {"value": step}, step)
    (tmp_path / "a file").write_text("stays")
    prune_checkpoints(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000024", "00000032", "a file"]


def draw():
    generator = np.random.mtrand._rand  # the global one
    return random.random(), random.gauss(0, 1), generator.random(), generator.standard_normal(), torch.rand(3).tolist()


def test_random_states_round_trip_through_a_file(tmp_path):
    random.seed(1)
    np.random.mtrand._rand.seed(1)
    torch.manual_seed(1)
    draw()  # leaves a cached second Gaussian in python's and in numpy's generator
    save_checkpoint(tmp_path / "c", random_states(), 1)
    expected = [draw(), draw()]
    random.seed(2)
    np.random.mtrand._rand.seed(2)
    torch.manual_seed(2)
    assert draw() != expected[0]
    restore_random_states(load_newest([tmp_path / "c"]))
    assert [draw(), draw()] == expected


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves; writing a checkpoint takes a fifth of a second of it."""
    now = [100.0]
    keep = checkpoint_module.keep_checkpoint

    def slow(*arguments):
        keep(*arguments)
        now[0] += 0.2

    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint_module, "keep_checkpoint", slow)
    return now


def test_checkpoint_keeper_spends_at_most_a_hundredth_on_snapshots(clock, tmp_path):
    keeper = CheckpointKeeper(tmp_path / "checkpoints")
    assert keeper.newest() is None
    clock[0] += 10.1
    assert keeper.is_due(wanted=True)  # the first snapshot: nobody knows yet what one takes
    keeper.keep(lambda: {"value": 1}, 1)
    clock[0] += 19.9
    assert not keeper.is_due(wanted=True)
    clock[0] += 0.2  # 20.1 seconds, and it took 0.2
    assert keeper.is_due(wanted=True)
    assert not keeper.is_due(wanted=False)
    assert keeper.newest() == {"value": 1}


def test_checkpoint_keeper_leaves_out_what_takes_no_longer_to_repeat_than_a_worker_to_start(clock, tmp_path):
    keeper = CheckpointKeeper(tmp_path / "checkpoints")
    clock[0] += 4.9  # of seconds: a small trial ends without one
    assert not keeper.is_due(wanted=True)
    clock[0] += 0.2
    assert keeper.is_due(wanted=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_checkpoint_keeper_keeps_no_number_that_is_none(value, tmp_path):
    keeper = CheckpointKeeper(tmp_path / "checkpoints")
    good = {"step": 1, "history": [{"loss": 0.5}], "optimizer": {"state": [{"m": torch.ones(3), "n": torch.ones(2)}]}}
    keeper.keep(lambda: good, 1)
    bad = {**good, "step": 2, "optimizer": {"state": [{"m": torch.ones(3), "n": torch.tensor([0.0, value])}]}}
    keeper.keep(lambda: bad, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000001"]
    assert keeper.newest()["step"] == 1


def test_checkpoint_keeper_is_due_after_half_a_minute_without_a_snapshot(clock, tmp_path):
    keeper = CheckpointKeeper(tmp_path / "checkpoints")
    clock[0] += 29.9
    assert not keeper.is_due(wanted=False)
    clock[0] += 0.2
    assert keeper.is_due(wanted=False)
    keeper.keep(dict, 1)
    assert not keeper.is_due(wanted=False)
