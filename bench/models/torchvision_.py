"""torchvision's DenseNet-121, Inception v3 and VGG-19, their first and last layers fitted to the data.

Weights are drawn anew: none are downloaded. First layers that are replaced are initialised as torch does by default.
"""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn

SMALL_IMAGE_PIXELS = 64


def build_densenet121(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return DenseNet-121 (Huang et al. 2017) for samples of at least 8x8.

    Its 7x7 stem of stride 2 and the pooling behind it shrink samples to a quarter. Up to 64 pixels, and where one side
    has fewer than 32, they give way to the 3x3 stem of stride 1 that the paper uses on CIFAR (section 4.2), as in our
    ResNets.
    """
    channels, *pixels = shape
    network: Any = torchvision.models.densenet121(weights=None, num_classes=classes)
    if max(pixels) <= SMALL_IMAGE_PIXELS or min(pixels) < SMALL_IMAGE_PIXELS // 2:
        network.features.conv0 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.features.pool0 = nn.Identity()
    elif channels != 3:
        network.features.conv0 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    module: nn.Module = network
    return module


def build_inception(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return Inception v3 (Szegedy et al. 2016) for samples of at least 75x75.

    Without the auxiliary classifier, which gives training a second output: with batch normalisation it is but a
    regulariser (section 4), and every network here is trained with one loss.
    """
    channels = shape[0]
    network: Any = torchvision.models.inception_v3(
        weights=None, num_classes=classes, aux_logits=False, init_weights=True
    )
    if channels != 3:
        network.Conv2d_1a_3x3.conv = nn.Conv2d(channels, 32, 3, stride=2, bias=False)
    module: nn.Module = network
    return module


def build_vgg19(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return VGG-19 (Simonyan and Zisserman 2015) without batch normalisation, for samples of at least 32x32.

    The ESC-50 study replaces its first layer, for one channel, and its last one. What the convolutions leave is pooled
    to 7x7, or repeated up to it, so the linear layers have their published size. Torch has no deterministic backward
    pass of that pooling on CUDA: `--deterministic` refuses this network there.
    """
    channels = shape[0]
    network: Any = torchvision.models.vgg19(weights=None, num_classes=classes)
    if channels != 3:
        network.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    module: nn.Module = network
    return module
