"""Both libraries compute the same products, whatever the processor of the machine that runs the tests."""

from __future__ import annotations

import pytest
import torch

from search_spaces.kernels import products
from search_spaces.kernels.products import add_product_, kernel_gradient, pixel_rows, product, product_with_gradients

LIBRARIES = [pytest.param(True, id="oneDNN"), pytest.param(False, id="MKL")]


@pytest.fixture(params=LIBRARIES)
def library(request, monkeypatch):
    """Let one library do everything, small products too."""
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch was built without oneDNN")
    monkeypatch.setattr(products, "_is_amd", lambda: request.param)
    monkeypatch.setattr(products, "_LARGE", 0)
    return request.param


def image(channels, seed=0, dtype=torch.float32, size=(3, 5, 4)):
    num, height, width = size
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, channels, height, width, generator=generator, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def kernel_of(num_out, num_in, seed=1):
    return torch.randn(num_out, num_in, generator=torch.Generator().manual_seed(seed))


def expected(x, kernel, groups):
    """The sum over channels written out, in double precision."""
    parts = zip(x.double().chunk(groups, 1), kernel.double().chunk(groups), strict=True)
    return torch.cat([torch.einsum("nchw,oc->nohw", part, rows) for part, rows in parts], 1)


def test_product_of_one_pixel_worked_out_by_hand(library):
    x = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1).contiguous(memory_format=torch.channels_last)
    kernel = torch.tensor([[1.0, 10.0], [-1.0, 0.5]])
    assert product(x, kernel, torch.tensor([0.25, 0.0])).flatten().tolist() == [32.25, -0.5]


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("has_bias", [True, False])
def test_product_adds_up_each_group(library, groups, has_bias):
    x, kernel = image(4 * groups), kernel_of(6 * groups, 4)
    bias = torch.arange(6.0 * groups) if has_bias else None
    before = x.clone(), kernel.clone()
    result = product(x, kernel, bias, groups)
    offset = 0 if bias is None else bias.view(1, -1, 1, 1)
    torch.testing.assert_close(result.double(), expected(x, kernel, groups) + offset, rtol=1e-5, atol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before[0])
    assert torch.equal(kernel, before[1])


@pytest.mark.parametrize("groups", [1, 3])
def test_add_product_adds_in_place(library, groups):
    x, kernel, into = image(4 * groups), kernel_of(6 * groups, 4), image(6 * groups, seed=2)
    total = into.double() + expected(x, kernel, groups)
    memory = into.data_ptr()
    add_product_(into, x, kernel, groups)
    torch.testing.assert_close(into.double(), total, rtol=1e-5, atol=1e-5)
    assert into.data_ptr() == memory


@pytest.mark.parametrize("groups", [1, 3])
def test_kernel_gradient_is_that_of_autograd(library, groups):
    x, kernel, gradient = image(4 * groups), kernel_of(6 * groups, 4), image(6 * groups, seed=2)
    kernel = kernel.double().requires_grad_()
    expected(x, kernel, groups).backward(gradient.double())
    result = kernel_gradient(gradient, x, groups)
    torch.testing.assert_close(result.double(), kernel.grad, rtol=1e-5, atol=1e-5)


def test_product_with_gradients_has_those_of_autograd(library):
    x, kernel, gradient = image(4), kernel_of(6, 4), image(6, seed=2)
    own = x.clone().requires_grad_(), kernel.clone().requires_grad_()
    result = product_with_gradients(*own)
    result.backward(gradient)
    exact = x.double().requires_grad_(), kernel.double().requires_grad_()
    expected(*exact, 1).backward(gradient.double())
    torch.testing.assert_close(result.double(), expected(*exact, 1), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(own, exact, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-5)


def test_product_in_double_precision_is_exact(library):
    # oneDNN has no double precision: it must not be asked for it.
    x, kernel = image(4, dtype=torch.float64), kernel_of(6, 4).double()
    torch.testing.assert_close(product(x, kernel), expected(x, kernel, 1), rtol=1e-14, atol=1e-14)


def test_pixel_rows_shares_the_memory():
    x = image(4)
    rows = pixel_rows(x)
    assert rows.shape == (60, 4)
    assert rows.data_ptr() == x.data_ptr()
    assert torch.equal(rows[7], x[0, :, 1, 3])


@pytest.mark.parametrize(("vendor", "is_amd"), [("AuthenticAMD", True), ("GenuineIntel", False), (None, False)])
def test_library_follows_from_the_processor(vendor, is_amd, monkeypatch, tmp_path):
    file = tmp_path / "cpuinfo"
    if vendor:
        file.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: 25\n")
    monkeypatch.setattr(products, "Path", lambda _: file)
    products._is_amd.cache_clear()
    try:
        assert products._is_amd() == (is_amd and torch.backends.mkldnn.is_available())
    finally:
        products._is_amd.cache_clear()
