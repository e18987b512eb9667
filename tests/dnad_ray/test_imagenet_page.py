"""The page docs/imagenet.md: what it tells people to type is accepted, and its figures are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from dnad_ray.cli.program import cli
from dnad_ray.commands.options import read_config
from dnad_ray.config.retrain import retrain_recipe, with_settings
from dnad_ray.config.run import RunConfig
from dnad_ray.distill.foreign_network import build_foreign
from dnad_ray.distill.foreign_spec import ForeignSpec, stage_sides
from dnad_ray.networks.search_space import space_of
from dnad_ray.search.checks import check_buildable
from dnad_ray.search.shrink import schedule_for
from search_spaces.network import network_from
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.stages import stages

IMAGES, SHARE = 1_281_167, 0.8


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "imagenet.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def config(page: str, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """What the page's one block of YAML says, read as the command line reads the file."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = tmp_path_factory.mktemp("page") / "imagenet.yaml"
    file.write_text(block, encoding="utf-8")
    return read_config(str(file))


def commands_of(page: str) -> list[list[str]]:
    lines = page.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("dnad-ray ")]


def test_commands_of_the_page_have_options_that_exist(page):
    commands = commands_of(page)
    assert [words[1] for words in commands] == ["search", "retrain", "export"]
    for _, name, *words in commands:
        command = cli.commands[name]
        context = command.make_context(name, list(words))
        if name == "retrain":
            recipe = retrain_recipe(context.params["recipe"])
            assert with_settings(recipe, {"num_processes": 8}, "--set").num_processes == 8
            assert context.params["set"] == ("num_processes=8",)
            assert context.params["max_macs"] == "598000000"


@pytest.mark.slow
def test_configuration_of_the_page_is_the_direct_search_of_the_paper(config):
    check_buildable(config)
    space = space_of(config.space)
    genotype = space.dense()
    assert (space.num_cells, space.num_nodes, config.space.init_channels) == (14, 4, 20)
    assert [index for index, cell in enumerate(genotype.cells) if cell.reduction] == [14 // 3, 2 * 14 // 3]
    assert stages(genotype)[-1] == 2
    assert space.num_candidates == 14 * (2 + 3 + 4 + 5) * 3
    # The images of the paper: 224 pixels behind the stem are 28, the classifier reads 4 nodes of 80 channels at 7 x 7.
    shape = NetworkShape(
        images=ImageShape(in_channels=3, image_size=224, num_classes=1000), init_channels=20, stem=config.space.stem
    )
    with torch.device("meta"):
        network = network_from(genotype, shape, searching=True)
        assert network.classifier.linear.in_features == 4 * 80
        assert network.tap_channels == (80, 160, 320)
        assert [tuple(state.shape[1:]) for state in network.stem(torch.empty(1, 3, 224, 224))] == [
            (20, 56, 56),
            (20, 28, 28),
        ]
    assert (config.train.epochs, config.train.warmup_epochs, config.train.batch_size) == (30, 5, 256)


def test_deletion_of_the_page_has_the_constants_of_the_release_per_step(config):
    steps = int(IMAGES * SHARE) // config.train.batch_size
    assert steps == 4003
    schedule = schedule_for(config.shrink, space_of(config.space).num_candidates, steps)
    assert schedule.target == pytest.approx(5e-4, rel=0.01)
    assert schedule.growth == pytest.approx(1.01, rel=1e-5)
    assert schedule.stall_max == 300
    assert (config.shrink.smoothing, config.shrink.gamma_init, config.shrink.gamma_max) == (0.99, 1e-6, 1e-3)


def test_teacher_of_the_page_has_the_taps_that_it_names(config, page):
    assert "40, 112 and 1280 channels at 28, 14 and 7 pixels" in page
    settings = config.distill.teacher
    assert not settings.is_trained, "it is taken as it is"
    sides = stage_sides(224, config.space.stem)
    outline = ForeignSpec(
        source=settings.source,
        model=settings.model or "",
        images=ImageShape(in_channels=3, image_size=224, num_classes=1000),
        input_size=settings.input_size,
        sides=sides,
        taps=settings.taps,
        scale=(1.0,),
        shift=(0.0,),
    )
    network = build_foreign(outline)
    assert (network.tap_channels, network.tap_sides) == ((40, 112, 1280), (28, 14, 7))


def test_hours_of_the_page_follow_from_its_rates(page):
    search, training = (IMAGES * share * epochs / 3600 for share, epochs in ((SHARE, 30), (1.0, 250)))
    assert f"{search / 10:.0f}0 / s" in page.replace(",", "")
    assert f"{training / 10:.0f}0 / t" in page.replace(",", "")
    assert f"{3 * training / 10:.0f}0 / t" in page.replace(",", "")
    rates = [float(rate) for rate in re.findall(r"batch \d+ \| ([\d.]+) \|", page)]
    hours = [float(h.replace(",", "")) for h in re.findall(r"\| ([\d,]+) for (?:a search|250 epochs)", page)]
    # Rates are printed with one digit behind the point: as far as that goes.
    for total, rate, printed in zip((search, training), rates, hours, strict=True):
        assert total / (rate + 0.05) <= printed <= total / (rate - 0.05)
