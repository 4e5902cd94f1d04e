"""The small reference network."""

from __future__ import annotations

from torch import nn


def build(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a CNN of three stages for samples of ``(channels, height, width)``.

    Each stage is a 3x3 convolution (32, 64, 128 channels, no bias) of stride 2 in place of
    pooling, as in Springenberg et al. (2015, "Striving for Simplicity: The All Convolutional
    Net"), batch normalisation and ReLU; then global average pooling and one linear layer.
    94,762 parameters for 3 channels and 10 classes. Small enough that storage can be the
    bottleneck.
    """
    channels = shape[0]
    layers: list[nn.Module] = []
    for width in (32, 64, 128):
        layers += [
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
