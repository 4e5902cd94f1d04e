"""Networks of the FSDKaggle2018 study: a small ConvNet, and ResNets for sounds.

Its samples are (1, 13, 40): 13 MFCC in 40 steps.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .resnet import build_resnet18, build_resnet50

_WIDTHS = (32, 64, 128, 256)
_DROPOUT = 0.1


def build_convnet4(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return four convolutions (3x3, stride 1, padding 1), for samples of at least 8x8.

    Each is followed by batch normalisation and ReLU, the first three by 2x2 max pooling, the last by global average
    pooling and one linear layer. The study leaves open how the channels grow: they double here, from 32. A fourth
    pooling would leave nothing of 13 coefficients. Batch normalisation takes the place of the convolutions' biases.
    """
    channels = shape[0]
    layers: list[nn.Module] = []
    for width in _WIDTHS:
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if width != _WIDTHS[-1]:
            layers.append(nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def build_resnet18_audio(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a ResNet-18 with dropout and batch normalisation before its last layer; see :func:`_for_audio`."""
    return _for_audio(build_resnet18(shape, classes), classes)


def build_resnet50_audio(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a ResNet-50 with dropout and batch normalisation before its last layer; see :func:`_for_audio`."""
    return _for_audio(build_resnet50(shape, classes), classes)


def _for_audio(network: Any, classes: int) -> nn.Module:
    """Put dropout 0.1, then batch normalisation, before the linear layer of a ResNet.

    The study names both, and not their order. Dropout comes first here, as the normalisation then sees in training what
    dropout leaves; Li et al. (2019, "Understanding the Disharmony between Dropout and Batch Normalization") advise
    the other order, as dropout shifts the variance that the normalisation learns for evaluation: at 0.1, by little.
    The stem is that of our other ResNets: 3x3 up to 64 pixels, where the study leaves it open.
    """
    features = network.fc.in_features
    network.fc = nn.Sequential(nn.Dropout(_DROPOUT), nn.BatchNorm1d(features), nn.Linear(features, classes))
    module: nn.Module = network
    return module
