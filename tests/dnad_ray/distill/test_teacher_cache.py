"""Kept outputs of a teacher: the same search bit for bit, computed once for all, and never the end of a search."""

from __future__ import annotations

import dataclasses
import errno
import os

import numpy as np
import pytest
import torch

from dnad_ray.commands.folder import conclude
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.data.images import Augmentation
from dnad_ray.distill.teacher_cache import TeacherCache, clear_cache, open_cache
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.run_folder.writing import create_run
from dnad_ray.runtime.devices import MEMORY_FORMAT
from dnad_ray.runtime.processes import Ranks
from dnad_ray.search.loop import SearchState, search
from dnad_ray.search.trial import run_trial
from dnad_ray.trials.spec import TrialSpec

KINDS = {
    "logits": {"distill.kind": "logits", "distill.weight": 0.5},
    "taps": {"distill.kind": "features+similarity", "distill.weight": 0.5},
    "both": {"distill.kind": "logits+attention", "distill.weight": 0.5},
}
VARIED = Augmentation(pad=1, flip=True, cutout=2)


@pytest.fixture
def plain(digits):
    return dataclasses.replace(digits, augmentation=Augmentation())


@pytest.fixture
def varied(digits):
    return dataclasses.replace(digits, augmentation=VARIED)


def _cached(config, data, teacher, folder, **options):
    state = SearchState.start(config, data, teacher, run="r", trial="t")
    state.cache = open_cache(folder, config, data, teacher, state.batches, **{"is_shared": True, **options})
    return state


def _bits(state):
    return [*state.supernet.state_dict().values(), *state.imitation.state_dict().values(), state.relaxation.weights()]


@pytest.mark.parametrize("images", ["plain", "varied"])
@pytest.mark.parametrize("kind", KINDS)
def test_search_is_the_same_bit_for_bit(kind, images, tiny, small_teacher, tmp_path, request, timeless):
    data = request.getfixturevalue(images)
    config = tiny({**KINDS[kind], "train.epochs": 2})
    without = SearchState.start(config, data, small_teacher, run="r", trial="t")
    expected = timeless(search(without))
    for attempt in range(2):  # the first one fills the file, the second one reads it
        state = _cached(config, data, small_teacher, tmp_path)
        assert timeless(search(state)) == expected
        assert all(map(torch.equal, _bits(state), _bits(without)))
        once = 192 if images == "plain" else state.step * 64
        assert state.cache.num_computed == (0 if attempt else once)


def test_last_batch_of_all_images_has_the_size_of_the_others(tiny, plain, small_teacher, tmp_path):
    data = dataclasses.replace(plain, train=plain.train.select(np.arange(150)))
    state = _cached(tiny(KINDS["logits"]), data, small_teacher, tmp_path)
    sizes = []
    says = state.cache._says
    state.cache._says = lambda images: sizes.append(len(images)) or says(images)
    images, _ = state.batches.batch(0)
    target = state.cache.target(0, images)
    assert sizes == [1, 64, 64, 64], "one image to see what there is to keep, then all of them"
    assert torch.equal(target.logits, small_teacher.predict(images).logits)


def test_trials_of_other_seeds_share_images_that_are_not_varied(tiny, plain, varied, small_teacher, tmp_path):
    for data, again in ((plain, 0), (varied, 64)):
        for seed, computed in ((0, None), (1, again)):
            config = tiny({**KINDS["logits"], "seed": seed})
            state = _cached(config, data, small_teacher, tmp_path)
            state.cache.target(0, state.batches.batch(0)[0])
            assert computed in (None, state.cache.num_computed)


def test_what_is_kept_is_only_what_is_imitated(tiny, plain, small_teacher, tmp_path):
    sizes = {}
    for kind, settings in KINDS.items():
        folder = tmp_path / kind
        state = _cached(tiny(settings), plain, small_teacher, folder)
        target = state.cache.target(0, state.batches.batch(0)[0])
        assert (target.taps[0] is None) == (kind == "logits")
        (file,) = folder.rglob("*.all")
        sizes[kind] = file.stat().st_size
    taps = sum(channels * side**2 for channels, side in zip((8, 16, 32), (8, 4, 2), strict=True))
    assert sizes == {"logits": 192 * 10 * 4, "taps": 192 * taps * 4, "both": 192 * (10 + taps) * 4}


def test_features_lie_in_memory_as_the_teacher_gives_them(tiny, plain, small_teacher, tmp_path):
    state = _cached(tiny(KINDS["taps"]), plain, small_teacher, tmp_path)
    images, _ = state.batches.batch(1)
    for kept, said in zip(state.cache.target(1, images).taps, small_teacher.predict(images).taps, strict=True):
        assert torch.equal(kept, said)
        assert kept.stride() == said.stride()


@pytest.mark.parametrize(
    ("overrides", "options", "why"),
    [
        ({"distill.teacher.cache": "never"}, {}, "never"),
        ({"train.precision": "bfloat16"}, {}, "other bits"),
        ({}, {"is_shared": False}, "nobody else comes to these images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_is_kept(overrides, options, why, tiny, varied, small_teacher, tmp_path):
    state = _cached(tiny({**KINDS["logits"], **overrides}), varied, small_teacher, tmp_path, **options)
    assert state.cache is None, why
    assert not list(tmp_path.iterdir())


def test_alone_it_still_pays_where_images_are_not_varied_or_where_it_is_asked_for(
    tiny, plain, varied, small_teacher, tmp_path
):
    for data, mode in ((plain, "auto"), (varied, "always")):
        config = tiny({**KINDS["logits"], "distill.teacher.cache": mode})
        assert _cached(config, data, small_teacher, tmp_path, is_shared=False).cache is not None


def test_too_large_is_not_kept(tiny, plain, small_teacher, tmp_path):
    rows = 192 * 10 * 4 / 2**30
    for limit, fits in ((rows * 1.001, True), (rows * 0.999, False)):
        folder = tmp_path / str(fits)
        config = tiny({**KINDS["logits"], "distill.teacher.cache_gib": limit})
        state = _cached(config, plain, small_teacher, folder)
        assert (state.cache.target(0, state.batches.batch(0)[0]) is not None) == fits
        assert folder.exists() == fits


@pytest.mark.parametrize("images", ["plain", "varied"])
def test_full_disk_ends_the_cache_and_not_the_search(
    images, tiny, small_teacher, tmp_path, request, monkeypatch, timeless
):
    data = request.getfixturevalue(images)
    config = tiny({**KINDS["logits"], "train.epochs": 2})
    expected = timeless(search(SearchState.start(config, data, small_teacher, run="r", trial="t")))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(os, "pwrite", full)
    state = _cached(config, data, small_teacher, tmp_path)
    assert timeless(search(state)) == expected
    assert not state.cache.is_open


def test_disk_is_reserved_where_the_system_has_no_call_for_it(tiny, plain, small_teacher, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    state = _cached(tiny(KINDS["logits"]), plain, small_teacher, tmp_path)
    images, _ = state.batches.batch(0)
    assert torch.equal(state.cache.target(0, images).logits, small_teacher.predict(images).logits)


def test_block_that_was_not_finished_is_not_believed(tiny, varied, small_teacher, tmp_path):
    state = _cached(tiny(KINDS["logits"]), varied, small_teacher, tmp_path)
    images, _ = state.batches.batch(0)
    expected = small_teacher.predict(images).logits
    state.cache.target(0, images)
    (file,) = tmp_path.rglob("*.steps")
    file.write_bytes(b"\0" + file.read_bytes()[1:-4])
    again = _cached(tiny(KINDS["logits"]), varied, small_teacher, tmp_path)
    assert torch.equal(again.cache.target(0, images).logits, expected)
    assert again.cache.num_computed == 64


@pytest.mark.parametrize("images", ["plain", "varied"])
def test_processes_of_a_trial_keep_their_own_parts(images, tiny, small_teacher, tmp_path, request):
    data, config = request.getfixturevalue(images), tiny(KINDS["both"])
    for attempt in range(2):
        for ranks in (Ranks(0, 3), Ranks(1, 3), Ranks(2, 3)):
            batches = TrainingBatches(data, 64, 0, torch.device("cpu"), MEMORY_FORMAT, ranks=ranks)
            cache = open_cache(tmp_path, config, data, small_teacher, batches, is_shared=True, ranks=ranks)
            for step in (0, 4):
                mine, _ = batches.batch(step)
                target, said = cache.target(step, mine), small_teacher.predict(mine)
                torch.testing.assert_close(target.logits, said.logits, rtol=1e-5, atol=1e-5)
                assert len(target.logits) == len(mine)
            assert not attempt or cache.num_computed == 0


def _fill(arguments):
    config, data, teacher, folder = arguments
    torch.set_num_threads(1)
    state = _cached(config, data, teacher, folder)
    target = state.cache.target(0, state.batches.batch(0)[0])
    return state.cache.num_computed, target.logits.tolist()


def test_processes_of_a_node_compute_it_once(tiny, plain, small_teacher, tmp_path, fork_server):
    jobs = [(tiny(KINDS["logits"]), plain, small_teacher, tmp_path)] * 2
    with fork_server.Pool(2) as pool:
        found = pool.map(_fill, jobs, chunksize=1)
    assert sorted(computed for computed, _ in found) == [0, 192]
    assert found[0][1] == found[1][1]


def test_trial_keeps_it_in_the_run_folder_until_the_run_ends(tiny, plain, small_teacher, tmp_path, quiet_board):
    folder = create_run(tmp_path / "run", {}, "0")
    config = tiny({**KINDS["logits"], "train.epochs": 1, "train.warmup_epochs": 0})
    spec = TrialSpec("t00", {"seed": 0}, config)
    events = [event for event, _ in run_trial(spec, plain, small_teacher, folder, None)]
    assert isinstance(events[-2], Snapshot)
    assert list(folder.rglob("*.all"))
    conclude([spec], read_run(folder), quiet_board)
    assert not (folder / ".teacher-cache").exists()


def test_clear_follows_no_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".teacher-cache").symlink_to(tmp_path / "elsewhere")
    clear_cache(tmp_path / "run")
    assert (tmp_path / "elsewhere" / "mine").exists()


def test_cache_without_a_step_has_no_file(tiny, plain, small_teacher, tmp_path):
    state = _cached(tiny(KINDS["logits"]), plain, small_teacher, tmp_path)
    assert isinstance(state.cache, TeacherCache)
    assert not list(tmp_path.iterdir())


OTHERS = {"is_black": True, "pad": 2, "flip": True, "cutout": 3}


def test_every_way_to_vary_images_counts(tiny, digits, small_teacher, tmp_path):
    """A field that is added to Augmentation has to be added here, and nowhere else."""
    assert {field.name for field in dataclasses.fields(Augmentation)} == set(OTHERS)
    config = tiny(KINDS["logits"])
    for index, (name, value) in enumerate(OTHERS.items()):
        folder = tmp_path / str(index)
        folder.mkdir()
        data = dataclasses.replace(digits, augmentation=Augmentation(**{name: value}))
        assert _cached(config, data, small_teacher, folder, is_shared=False).cache is None
        states = [
            _cached(config, dataclasses.replace(digits, augmentation=one), small_teacher, folder)
            for one in (data.augmentation, Augmentation(**{**OTHERS, name: Augmentation.__dict__[name]}))
        ]
        for state in states:
            state.cache.target(0, state.batches.batch(0)[0])
            assert state.cache.num_computed == 64, "nobody else's images"
        assert len(list(folder.glob(".teacher-cache/*/*.steps"))) == 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Turning(Augmentation):
    turn: int = 0


def test_a_way_to_vary_images_that_the_cache_does_not_know_counts_too(tiny, digits, small_teacher, tmp_path):
    data = dataclasses.replace(digits, augmentation=_Turning(turn=90))
    assert _cached(tiny(KINDS["logits"]), data, small_teacher, tmp_path, is_shared=False).cache is None
