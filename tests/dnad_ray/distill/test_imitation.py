"""Imitation losses: values by hand, finite differences, and stages that one side lost."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dnad_ray.config.distill import KINDS, DistillConfig, SharesConfig
from dnad_ray.distill.imitation import LOSSES, FeatureImitation, Imitation, logit_imitation
from dnad_ray.distill.losses import angle_imitation, decoupled_imitation, distance_imitation, principal_factors
from search_spaces.network import NetworkOutput


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _double(*values):
    return torch.tensor(values, dtype=torch.float64)


def _feature_loss(ours, theirs):
    """Mean squared error of features that are standardised per channel by hand."""

    def standard(x):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt()

    return (standard(ours) - standard(theirs)).pow(2).mean()


def _taps(channels, num_images=2):
    return tuple(
        torch.randn(num_images, width, 2**side, 2**side, dtype=torch.float64)
        for width, side in zip(channels, (3, 2, 1), strict=True)
    )


def test_logit_imitation_by_hand():
    # T = 2: softmax(2 log 3 / 2, 0) is 3/4, 1/4 for the teacher; the student says 1/2, 1/2.
    student, teacher = _double([0.0, 0.0]), _double([2 * math.log(3), 0.0])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert logit_imitation(student, teacher, 2.0).item() == pytest.approx(expected)
    # The other way round the divergence is another one.
    backwards = 4 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    assert logit_imitation(teacher, student, 2.0).item() == pytest.approx(backwards)
    assert expected != pytest.approx(backwards)


def test_logit_imitation_is_the_mean_over_the_batch():
    student, teacher = torch.randn(2, 5, 3, dtype=torch.float64).unbind(0)
    alone = [logit_imitation(student[i : i + 1], teacher[i : i + 1], 3.0) for i in range(5)]
    torch.testing.assert_close(logit_imitation(student, teacher, 3.0), torch.stack(alone).mean())


def test_logit_imitation_is_zero_only_for_equal_distributions():
    logits = torch.randn(4, 3, dtype=torch.float64)
    assert logit_imitation(logits + 5, logits, 4.0).item() == pytest.approx(0, abs=1e-12)
    assert logit_imitation(2 * logits, logits, 4.0).item() > 0.01


@pytest.mark.parametrize("temperature", [1.0, 2.0, 6.0])
def test_logit_imitation_has_the_factor_temperature_squared(temperature):
    student, teacher = torch.randn(2, 4, 3, dtype=torch.float64).unbind(0)
    shares, wanted = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    divergence = (wanted * (wanted / shares).log()).sum(1).mean()
    assert logit_imitation(student, teacher, temperature).item() == pytest.approx(temperature**2 * divergence.item())


def test_logit_imitation_gradient_does_not_fade_with_temperature():
    student, teacher = (
        torch.randn(4, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(4, 3, dtype=torch.float64),
    )
    teacher = teacher - teacher.mean(1, keepdim=True)
    gradient = torch.autograd.grad(logit_imitation(student, teacher, 1e4), student)[0]
    # In the limit: the difference of centred logits, by classes and batch (Hinton et al., section 2.1).
    centred = student.detach() - student.detach().mean(1, keepdim=True)
    torch.testing.assert_close(gradient, (centred - teacher) / (3 * 4), rtol=1e-3, atol=1e-6)


def test_logit_imitation_gradient_against_finite_differences():
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: logit_imitation(logits, teacher, 2.5), [student])


def test_feature_imitation_by_hand():
    """One channel, two pixels: standardised they are -1 and 1 whatever they were, or 1 and -1."""
    imitation = FeatureImitation((1, 1), (1, 1), (0.25, 0.75)).double()
    for adapter in imitation.adapters:
        torch.nn.init.ones_(adapter.weight)
    rising, falling = _double(1.0, 9.0).reshape(1, 1, 1, 2), _double(5.0, -5.0).reshape(1, 1, 1, 2)
    assert imitation((rising, rising), (rising, rising)).item() == 0
    assert imitation((rising, rising), (rising, falling)).item() == pytest.approx(0.75 * 4, rel=1e-5)
    assert imitation((falling, rising), (rising, rising)).item() == pytest.approx(0.25 * 4, rel=1e-5)


def test_feature_imitation_adapts_channels():
    imitation = FeatureImitation((2, 4, 8), (3, 6, 12), (0.2, 0.3, 0.5)).double()
    student, teacher = _taps((2, 4, 8)), _taps((3, 6, 12))
    expected = sum(
        ratio * _feature_loss(F.conv2d(ours, adapter.weight), theirs)
        for ratio, adapter, ours, theirs in zip((0.2, 0.3, 0.5), imitation.adapters, student, teacher, strict=True)
    )
    torch.testing.assert_close(imitation(student, teacher), expected, rtol=0, atol=1e-10)


def test_feature_imitation_trains_student_and_adapters():
    imitation = FeatureImitation((2, 4, 8), (3, 6, 12), (0.2, 0.3, 0.5)).double()
    student, teacher = [tap.requires_grad_() for tap in _taps((2, 4, 8))], _taps((3, 6, 12))
    imitation(student, teacher).backward()
    assert all(tap.grad.any() for tap in student)
    assert all(adapter.weight.grad.any() for adapter in imitation.adapters)
    assert len(list(imitation.parameters())) == 3
    assert not list(imitation.buffers()), "nothing is kept for an evaluation that there never is"


def test_feature_imitation_ignores_scale_and_offset():
    imitation = FeatureImitation((2, 4, 8), (3, 6, 12), (0.2, 0.3, 0.5)).double()
    student, teacher = _taps((2, 4, 8)), _taps((3, 6, 12))
    expected = imitation(student, teacher)
    other = imitation([7 * tap + 3 for tap in student], [50 * tap - 20 for tap in teacher])
    torch.testing.assert_close(other, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("who", ["student", "teacher", "both"])
def test_feature_imitation_skips_lost_taps(who, lost):
    imitation = FeatureImitation((2, 4, 8), (3, 6, 12), (0.2, 0.3, 0.5)).double()
    student, teacher = _taps((2, 4, 8)), _taps((3, 6, 12))
    parts = [imitation([tap if i == k else None for i, tap in enumerate(student)], teacher).item() for k in range(3)]
    assert imitation(student, teacher).item() == pytest.approx(sum(parts))
    without = [[None if i == lost and who in (side, "both") else tap for i, tap in enumerate(taps)]
               for side, taps in (("student", student), ("teacher", teacher))]  # fmt: skip
    assert imitation(*without).item() == pytest.approx(sum(parts) - parts[lost])


def test_feature_imitation_without_any_common_tap_is_zero():
    imitation = FeatureImitation((2, 4, 8), (3, 6, 12), (0.2, 0.3, 0.5)).double()
    student, teacher = _taps((2, 4, 8)), _taps((3, 6, 12))
    for ours, theirs in (
        ((None,) * 3, teacher),
        (student, (None,) * 3),
        ((None, *student[1:]), (teacher[0], None, None)),
    ):
        loss = imitation(ours, theirs)
        assert (loss.shape, loss.dtype, loss.item()) == ((), torch.float64, 0)


def test_feature_imitation_refuses_other_numbers_of_taps():
    with pytest.raises(ValueError, match="argument"):
        FeatureImitation((2, 4), (3, 6, 12), (0.2, 0.3, 0.5))


@pytest.mark.parametrize("kind", ["none", "logits", "features", "logits+features"])
def test_imitation_adds_the_kinds_that_are_asked_for(kind):
    torch.manual_seed(3)
    config = DistillConfig(kind=kind, temperature=2.0 if "logits" in kind else None, stage_ratios=(0.5, 0, 0.5))
    imitation = Imitation(config, (2, 4, 8), (3, 6, 12)).double()
    student = NetworkOutput(torch.randn(2, 5, dtype=torch.float64), _taps((2, 4, 8)))
    teacher = NetworkOutput(torch.randn(2, 5, dtype=torch.float64), _taps((3, 6, 12)))
    expected = 0.0
    if "logits" in kind:
        expected += logit_imitation(student.logits, teacher.logits, 2.0).item()
    if "features" in kind:
        expected += imitation.features(student.taps, teacher.taps).item()
    assert imitation(student, teacher).item() == pytest.approx(expected)
    assert (expected > 0) == (kind != "none")
    assert bool(list(imitation.parameters())) == ("features" in kind)


def test_imitation_takes_the_default_temperature():
    assert Imitation(DistillConfig(kind="logits"), (), ()).temperature == 4.0
    assert Imitation(DistillConfig(kind="features"), (1, 1, 1), (1, 1, 1)).temperature is None


CHANNELS = (2, 4, 8), (3, 6, 12)


def _outputs(num_images=3):
    student = NetworkOutput(torch.randn(num_images, 5, dtype=torch.float64), _taps(CHANNELS[0], num_images))
    return student, NetworkOutput(torch.randn(num_images, 5, dtype=torch.float64), _taps(CHANNELS[1], num_images))


def _imitation(kind, **settings):
    torch.manual_seed(1)
    return Imitation(DistillConfig(kind=kind, **settings), *CHANNELS).double()


LABELS = torch.tensor([4, 0, 2])


def test_every_kind_of_the_table_has_a_loss_a_share_and_a_place_in_the_sum():
    """One line of a table makes a kind: what it compares, its share, and how it is computed."""
    assert list(LOSSES) == list(KINDS) == list(SharesConfig.model_fields)
    for name, kind in KINDS.items():
        assert SharesConfig.model_fields[name].description == kind.share
        config = DistillConfig(kind=name)
        assert (config.uses_logits, config.uses_features) == (kind.of == "logits", kind.of == "taps")
        assert config.uses_same_sizes == kind.same_size
    assert [name for name, kind in KINDS.items() if kind.same_size] == ["features", "attention", "factor"]
    assert [name for name, kind in KINDS.items() if kind.of == "logits"] == ["logits", "decoupled"]
    assert DistillConfig.model_fields["kind"].description.endswith(f"of {', '.join(KINDS)}.")


def test_modules_of_imitation_have_the_names_that_checkpoints_hold():
    kept = {name.partition(".")[0] for name in _imitation("features+factor+relational").state_dict()}
    assert kept == {"features", "factors"}
    assert not _imitation("logits+attention").state_dict()
    assert [_imitation(kind).needs_fit for kind in ("features", "factor")] == [False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_imitation_of_every_kind_trains_the_student_and_what_translates(kind):
    (student, teacher), imitation = _outputs(), _imitation(kind)
    for tensor in (student.logits, *student.taps):
        tensor.requires_grad_()
    imitation(student, teacher, LABELS).backward()
    assert (student.logits.grad is not None) == (KINDS[kind].of == "logits")
    assert all((tap.grad is not None) == (KINDS[kind].of == "taps") for tap in student.taps)
    trained = [parameter for parameter in imitation.parameters() if parameter.requires_grad]
    assert len(trained) == (3 if kind in ("features", "factor") else 0)
    assert all(parameter.grad.any() for parameter in trained)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.of == "taps"])
def test_imitation_of_every_kind_skips_lost_taps(kind):
    (student, teacher), imitation = _outputs(), _imitation(kind)
    parts = [
        imitation(student._replace(taps=tuple(tap if i == k else None for i, tap in enumerate(student.taps))), teacher)
        for k in range(3)
    ]
    assert imitation(student, teacher).item() == pytest.approx(sum(parts).item())
    assert all(part > 0 for part in parts)
    nothing = imitation(student, teacher._replace(taps=(None,) * 3))
    assert (nothing.shape, nothing.item()) == ((), 0)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.of == "taps"])
def test_imitation_weighs_stages(kind):
    student, teacher = _outputs()
    alone = [_imitation(kind, stage_ratios=[float(i == k) for i in range(3)])(student, teacher) for k in range(3)]
    mixed = _imitation(kind, stage_ratios=(0.5, 0.25, 2.0))(student, teacher)
    assert mixed.item() == pytest.approx((0.5 * alone[0] + 0.25 * alone[1] + 2 * alone[2]).item())


def test_imitation_of_several_kinds_is_their_weighted_sum():
    student, teacher = _outputs()
    shares = {"logits": 2.0, "attention": 0.5, "relational": 0.0, "features": 100.0}
    parts = [shares[kind] * _imitation(kind)(student, teacher) for kind in ("logits", "attention")]
    imitation = _imitation("relational+attention+logits", shares=shares)
    assert imitation(student, teacher).item() == pytest.approx(sum(parts).item())


def test_imitation_takes_the_temperature_of_the_step():
    (student, teacher), imitation = _outputs(), _imitation("logits", temperature=2.0)
    hot = logit_imitation(student.logits, teacher.logits, 7.0)
    assert imitation(student, teacher, temperature=7.0).item() == hot.item()
    assert imitation(student, teacher, temperature=torch.tensor(7.0)).item() == pytest.approx(hot.item())
    assert imitation(student, teacher).item() == logit_imitation(student.logits, teacher.logits, 2.0).item()


def test_imitation_decoupled_has_the_configured_factors():
    student, teacher = _outputs()
    expected = decoupled_imitation(student.logits, teacher.logits, LABELS, 4.0, target=0.5, rest=3.0)
    imitation = _imitation("decoupled", decoupled_target=0.5, decoupled_rest=3.0)
    assert imitation(student, teacher, LABELS).item() == expected.item()


def test_relational_is_distances_and_twice_angles_of_pooled_features():
    student, teacher = _outputs()
    ours, theirs = (output.taps[1].mean((2, 3)) for output in (student, teacher))
    expected = distance_imitation(ours, theirs) + 2 * angle_imitation(ours, theirs)
    assert _imitation("relational", stage_ratios=(0, 1, 0))(student, teacher).item() == pytest.approx(expected.item())


def test_factors_are_fitted_to_the_teacher_and_saved():
    (student, teacher), imitation = _outputs(), _imitation("factor", factor_rate=0.5)
    before = imitation(student, teacher).item()
    imitation.factors.fit(teacher.taps)
    for paraphraser, tap in zip(imitation.factors.paraphrasers, teacher.taps, strict=True):
        torch.testing.assert_close(paraphraser.weight, principal_factors(tap, len(paraphraser.weight)))
    assert [len(paraphraser.weight) for paraphraser in imitation.factors.paraphrasers] == [2, 3, 6]
    again = _imitation("factor")
    again.load_state_dict(imitation.state_dict())
    assert again(student, teacher).item() == imitation(student, teacher).item() != before


def test_factors_of_a_student_that_says_the_same_are_no_loss():
    imitation = _imitation("factor", stage_ratios=(0, 0, 1))
    _, teacher = _outputs()
    imitation.factors.translators[2].weight = imitation.factors.paraphrasers[2].weight
    student = teacher._replace(taps=(None, None, teacher.taps[2]))
    imitation.factors.translators[2].in_channels = 12
    assert imitation(student, teacher).item() == pytest.approx(0, abs=1e-12)
