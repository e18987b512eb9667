"""Every named space is searched: deletion, imitation, snapshots and a resume, and each keeps its own rules."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from dnad_ray.config.run import SpaceConfig, config_from_dict
from dnad_ray.costs.trace import complexity_of
from dnad_ray.distill.teacher_sources import train_teacher
from dnad_ray.errors import ConfigError
from dnad_ray.networks.search_space import space_of
from dnad_ray.run_folder.genotypes import read_any_genotype
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.search.checks import check_buildable
from dnad_ray.search.loop import SearchState, search
from dnad_ray.search.relaxation import Relaxation
from search_spaces.derivation import derived
from search_spaces.errors import SpaceError
from search_spaces.formats import from_nas_bench_201, to_nas_bench_201
from search_spaces.genotype import NONE
from search_spaces.named import SPACES
from search_spaces.supernet import Supernet


def _config(tiny, name, **more):
    changes = {
        "space.name": name,
        "space.operations": None if SPACES[name].operations else ["sep_conv_3x3", "skip_connect"],
        "space.num_nodes": 3 if name == "nas-bench-201" else 4 if name == "s1" else 2,
        "distill.kind": "logits+features",
        "distill.teacher.epochs": 1,
        "train.epochs": 4,
        "shrink.floor.operations": 1,
        **more,
    }
    return tiny(changes)


@pytest.mark.parametrize("name", SPACES)
def test_search_in_every_space(tiny, digits, name):
    config = _config(tiny, name)
    check_buildable(config)
    teacher = train_teacher(config, digits, torch.device("cpu"))
    state = SearchState.start(config, digits, teacher, run="r", trial="t")
    template, snapshots = SPACES[name], []
    num_before = len(state.supernet.candidates)
    for event in search(state):
        cells = state.supernet.genotype.cells
        groups: dict[int, set[object]] = {}
        for index, cell in enumerate(cells):
            if cell.num_operations:
                groups.setdefault(state.space.group_of(cell.reduction, index), set()).add(cell.nodes)
        assert all(len(topologies) == 1 for topologies in groups.values()), "cells that share went apart"
        if isinstance(event, Snapshot):
            snapshots.append(event)
            genotype = state.derived_network()[0]
            assert genotype.digest == event.digest
            if len(snapshots) == 1 or event.kind == "final":  # a trace takes longer than the search
                cost = complexity_of(genotype, state.shape(config.evaluation.init_channels))
                assert (event.macs, event.params) == (cost.macs, cost.params)
            nodes = [node for cell in genotype.cells for node in cell.nodes]
            assert not any(edge.operation == NONE for node in nodes for edge in node)
            if template.derivation == "inputs":
                assert {len({edge.source for edge in node}) for node in nodes if node} == {2}
                assert {len(node) for node in nodes if node} == {2}
            if template.derivation == "edges":
                assert all(len({edge.source for edge in node}) == len(node) for node in nodes)
                again = from_nas_bench_201(to_nas_bench_201(genotype), len(genotype.cells)).pruned()
                assert again.digest == genotype.digest
    assert len(state.supernet.candidates) < num_before
    assert snapshots
    assert snapshots[-1].kind == "final"
    assert all(0 <= event.proxy_accuracy <= 1 for event in snapshots)


@pytest.mark.parametrize("name", ["darts-cells", "nas-bench-201"])
def test_resume_in_a_space_that_shares(tiny, digits, timeless, name):
    config = _config(tiny, name, **{"distill.kind": "none"})
    whole = timeless(search(SearchState.start(config, digits, run="r", trial="t")))
    state = SearchState.start(config, digits, run="r", trial="t")
    events, first = search(state), []
    for event in events:
        first.append(event)
        if isinstance(event, Snapshot) and len(first) > 1:
            break
    saved = copy.deepcopy(state.state_dict())
    resumed = SearchState.resume(saved, config, digits, run="r", trial="t")
    assert len(resumed.relaxation.parameter) < len(resumed.supernet.candidates)
    assert timeless(first) + timeless(search(resumed)) == whole


def test_shared_parameter_gets_the_gradient_of_all_its_cells(tiny):
    config = _config(tiny, "darts-cells")
    space = space_of(config.space)
    supernet = Supernet(space, config_shape(config))
    relaxation = Relaxation(supernet.candidates, supernet.groups, space.inputs_kept)
    # One normal cell, two reduction cells: as many parameters as two cells have candidates.
    per_cell = len(supernet.candidates) // 3
    assert len(relaxation.parameter) == 2 * per_cell
    weights = relaxation.weights()
    assert torch.equal(weights[per_cell : 2 * per_cell], weights[2 * per_cell :])
    (weights[per_cell] + weights[2 * per_cell]).backward()
    once = copy.deepcopy(relaxation.parameter.grad)
    relaxation.parameter.grad = None
    (2 * relaxation.weights()[per_cell]).backward()
    assert torch.allclose(once, relaxation.parameter.grad)
    assert once.abs().sum() > 0


def config_shape(config):
    from search_spaces.shape import ImageShape, NetworkShape

    return NetworkShape(
        images=ImageShape(in_channels=1, image_size=8, num_classes=10), init_channels=config.space.init_channels
    )


def test_weights_of_a_part_of_the_candidates_sum_to_one_per_node(tiny):
    config = _config(tiny, "s2")
    space = space_of(config.space)
    supernet = Supernet(space, config_shape(config))
    relaxation = Relaxation(supernet.candidates, supernet.groups, space.inputs_kept)
    chosen = derived(space, supernet.candidates, relaxation.weights().tolist())
    weights = relaxation.weights_of(chosen)
    assert int((weights > 0).sum()) == len(chosen) == 3 * 2 * 2
    assert torch.allclose(weights[chosen], torch.full((len(chosen),), 0.5))


def test_deletion_leaves_each_node_its_inputs(tiny):
    """All weights but one are below the baseline: two inputs per node stay, the strongest operation of each."""
    config = _config(tiny, "s2")
    space = space_of(config.space)
    supernet = Supernet(space, config_shape(config))
    relaxation = Relaxation(supernet.candidates, supernet.groups, space.inputs_kept)
    weights = [0.001 * (1 + position % 5) for position in range(len(supernet.candidates))]
    dead = relaxation.weakest(weights, 0.01)
    alive = [item for position, item in enumerate(supernet.candidates) if position not in dead]
    for cell in range(3):
        for node in range(2):
            sources = [item.edge.source for item in alive if (item.cell, item.node) == (cell, node)]
            assert len(sources) == len(set(sources)) == 2


def test_sizes_follow_the_name_unless_they_are_written():
    assert SpaceConfig(name="nas-bench-201").num_cells == 15
    assert SpaceConfig(name="nas-bench-201", num_cells=6).num_cells == 6
    assert (SpaceConfig().num_cells, SpaceConfig().num_nodes, SpaceConfig().init_channels) == (8, 4, 16)
    assert config_from_dict({"space": {"name": "nas-bench-201"}}).space.num_nodes == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space.name": "darts-v7"}, "space.name: got 'darts-v7'; allowed: dnad"),
        ({"space.name": "own", "space.operations": None}, "space.operations: got None"),
        ({"space.name": "nas-bench-201", "space.num_cells": 4}, "a multiple of the 3 stages"),
        ({"space.name": "nas-bench-201", "space.stem": "imagenet"}, "space.stem: got 'imagenet'"),
        ({"space.name": "nas-bench-201", "evaluation.keep_weights": True}, "evaluation.keep_weights: got True"),
        ({"space.num_stages": 2, "distill.kind": "features"}, "space.num_stages: got 2; allowed: 3 where features"),
        ({"space.num_cells": 2}, "space.num_cells: got 2; allowed: at least 3"),
    ],
)
def test_space_that_cannot_be_built(tiny, changes, words):
    with pytest.raises((ConfigError, SpaceError), match=words):
        check_buildable(tiny(changes))


@pytest.mark.parametrize("name", ["nas-bench-201", "darts-cells"])
def test_command_leaves_snapshots_report_and_a_front(command, tmp_path, name):
    out = tmp_path / "run"
    options = {
        "space.name": name,
        "space.operations": "null",
        "space.num_nodes": 3,
        "distill.kind": "logits+features",
        "distill.teacher.epochs": 1,
        "distill.teacher.genotype": "darts-v2" if name == "darts-cells" else "null",
        "train.epochs": 2,
        "train.batch_size": 256,
    }
    sets = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    code, _, err = command("search", "smoke", "--out", out, "--quiet", *sets)
    assert (code, err) == (0, "")
    assert (out / "report.html").stat().st_size > 10_000
    genotypes = [read_any_genotype(path) for path in (out / "genotypes").glob("*.json")]
    assert {path.stem for path in (out / "genotypes").glob("*.json")} == {genotype.digest for genotype in genotypes}
    skeletons = {genotype.skeleton for genotype in genotypes}
    assert skeletons == {SPACES[name].skeleton}
    code, shown, _ = command("front", out, "--json")
    assert (code, bool(json.loads(shown))) == (0, True)
    if name == "darts-cells":
        teacher = json.loads((out / "teacher" / "teacher.json").read_text())
        assert teacher["genotype"]["digest"] == read_any_genotype("darts-v2", 3).digest


def test_two_stages_without_features(tiny, digits):
    config = tiny({"space.num_stages": 2, "train.epochs": 2})
    check_buildable(config)
    state = SearchState.start(config, digits, run="r", trial="t")
    assert [cell.reduction for cell in state.supernet.genotype.cells] == [False, True, False]
    assert any(isinstance(event, Snapshot) for event in search(state))
