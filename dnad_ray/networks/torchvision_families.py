"""Torchvision networks as baselines: no pretrained weights, scaled in width, adapted to the size of the images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from dnad_ray.errors import ConfigError
from dnad_ray.runtime.torchvision_import import torchvision_models
from search_spaces.shape import ImageShape

__all__ = ["VISION_FAMILIES", "vision_network"]

_SMALL_IMAGES = 64
_LEAST_SIDE = 4
_MOMENTUM = 0.1


def vision_network(family: str, width: float, images: ImageShape) -> nn.Module:
    """Build a network of torchvision for images of a size.

    Images of up to 64 pixels keep their resolution in the first layers, as is usual for CIFAR: a ResNet begins with a
    3x3 convolution and no pool; the first strides of a mobile network become 1 until 4 x 4 pixels reach its end.

    Args:
        family: Name in :data:`VISION_FAMILIES`.
        width: Factor on all channels.
        images: Shape and number of classes of its images.

    Raises:
        ConfigError: If there is no such family.
    """
    if family not in VISION_FAMILIES:
        raise ConfigError("baseline", family, ", ".join(VISION_FAMILIES))
    return VISION_FAMILIES[family](width, images)


def _resnet18(width: float, images: ImageShape) -> nn.Module:
    models: Any = torchvision_models()

    class ScaledResNet(models.ResNet):  # type: ignore[misc] # torchvision comes without types
        """The ResNet of torchvision with all widths multiplied by a factor."""

        def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> Any:
            if planes == 64:  # only the first call: the stem was built before it, at the original width
                self.inplanes = _scaled(64, width)
                self.conv1 = nn.Conv2d(images.in_channels, self.inplanes, 7, 2, 3, bias=False)
                self.bn1 = nn.BatchNorm2d(self.inplanes)
            return super()._make_layer(block, _scaled(planes, width), *args, **kwargs)

    network: nn.Module = ScaledResNet(models.resnet.BasicBlock, [2, 2, 2, 2])
    if images.image_size <= _SMALL_IMAGES:
        network.conv1 = nn.Conv2d(images.in_channels, _scaled(64, width), 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    network.fc = nn.Linear(_scaled(512, width), images.num_classes)
    for block in network.modules():
        if isinstance(block, models.resnet.BasicBlock) and block.downsample is not None:
            block.downsample[0] = _Projection(block.downsample[0])
    return network


class _Projection(nn.Conv2d):
    """A convolution 1x1 with a stride, as a convolution of the pixels that the stride keeps.

    Fewer than 8 channels in the channels-last format let oneDNN 3.12 (torch 2.13) write out of bounds in the gradient
    of the weights, on CPUs without AVX-512: https://github.com/uxlfoundation/oneDNN/issues/6035.

    Args:
        conv: The convolution that it replaces; its weights are used.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 1, conv.stride, bias=False, device="meta")  # type: ignore[arg-type]
        self.weight = conv.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        return F.conv2d(x[:, :, :: self.stride[0], :: self.stride[1]], self.weight)


def _mobilenet_v3_small(width: float, images: ImageShape) -> nn.Module:
    network: nn.Module = torchvision_models().mobilenet_v3_small(
        weights=None, num_classes=images.num_classes, width_mult=width
    )
    return _fitted(network, images)


def _efficientnet_b0(width: float, images: ImageShape) -> nn.Module:
    models: Any = torchvision_models()
    settings, last_channel = models.efficientnet._efficientnet_conf("efficientnet_b0", width_mult=width, depth_mult=1.0)
    network = models.EfficientNet(settings, dropout=0.2, last_channel=last_channel, num_classes=images.num_classes)
    return _fitted(network, images)


VISION_FAMILIES: dict[str, Callable[[float, ImageShape], nn.Module]] = {
    "resnet18": _resnet18,
    "mobilenet_v3_small": _mobilenet_v3_small,
    "efficientnet_b0": _efficientnet_b0,
}
"""Name -> ``factory(width, images)``."""


def _scaled(channels: int, width: float) -> int:
    return max(4, round(channels * width / 4) * 4)


def _fitted(network: nn.Module, images: ImageShape) -> nn.Module:
    """Adapt a mobile network to the channels of the images, to small image sizes, and to retraining."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # torchvision's 0.01 is for ImageNet: after the few steps of a short training the running statistics would
            # still be their initial values, and the network would guess. All other networks here have 0.1 too.
            module.momentum = _MOMENTUM
    features: Any = network.features
    first = features[0][0]
    if images.in_channels != first.in_channels:
        features[0][0] = nn.Conv2d(
            images.in_channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False
        )
    if images.image_size <= _SMALL_IMAGES:
        strided = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.stride == (2, 2)]
        side = images.image_size
        for module in reversed(strided):
            # From the end: the last strides are kept, as many as the image size allows.
            if side // 2 >= _LEAST_SIDE:
                side //= 2
            else:
                module.stride = (1, 1)
    return network
