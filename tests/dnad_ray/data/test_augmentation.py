"""Random augmentation: crop, mirroring and cutout by hand, and draws that depend on seed and epoch alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dnad_ray.data.augmentation import Augmentation, EpochDraws, crop_and_flip, cutout_mask, draw_epoch


def _draws(offset=(0, 0), flip=False, centre=(0, 0)):
    """Return the draws of a single image."""
    tensors = torch.tensor([0]), torch.tensor([offset]), torch.tensor([flip]), torch.tensor([centre])
    return EpochDraws(**dict(zip(("order", "offset", "flip", "centre"), tensors, strict=True)))


def test_seeds_and_epochs_never_share_their_draws():
    orders = {
        tuple(draw_epoch(seed, epoch, 64, 8, Augmentation()).order.tolist())
        for seed in range(12)
        for epoch in range(12)
    }
    assert len(orders) == 144


def test_order_does_not_depend_on_what_is_varied():
    plain, varied = (draw_epoch(4, 2, 50, 8, augmentation) for augmentation in (Augmentation(), Augmentation(pad=3)))
    assert torch.equal(plain.order, varied.order)


@pytest.mark.parametrize(
    ("is_black", "shifted"),
    [(True, [[0, 4, 5], [0, 7, 8], [0, 0, 0]]), (False, [[4, 4, 5], [7, 7, 8], [7, 7, 8]])],
)
def test_crop_shifts_pads_and_mirrors(is_black, shifted):
    image = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=torch.uint8)[None, None]
    # Of the image padded by one pixel: one row further down than its own place, one column further to the left.
    varied = Augmentation(pad=1, is_black=is_black)
    found = crop_and_flip(image, _draws(offset=(2, 0)), varied)
    assert found[0, 0].tolist() == shifted
    mirrored = crop_and_flip(image, _draws(offset=(2, 0), flip=True), dataclasses.replace(varied, flip=True))
    assert mirrored[0, 0].tolist() == [row[::-1] for row in shifted]
    assert image[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_nothing_to_vary_returns_the_same_tensor():
    image = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    assert crop_and_flip(image, _draws(flip=True), Augmentation(cutout=2)) is image


def test_cutout_may_extend_beyond_the_image():
    mask = cutout_mask(_draws(centre=(0, 2)), Augmentation(cutout=2), 3)
    # Rows -1 and 0, columns 1 and 2.
    assert mask[0, 0].tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]


def test_draws_of_some_images_are_their_rows():
    draws = draw_epoch(3, 0, 10, 8, Augmentation(pad=2, flip=True))
    some = draws.of(torch.tensor([7, 1]))
    assert some.order.tolist() == [7, 1]
    assert some.offset.tolist() == [draws.offset[7].tolist(), draws.offset[1].tolist()]
    assert some.flip.tolist() == [bool(draws.flip[7]), bool(draws.flip[1])]
    assert some.centre.tolist() == [draws.centre[7].tolist(), draws.centre[1].tolist()]
