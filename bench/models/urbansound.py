"""Networks of the UrbanSound8K study: that of Salamon and Bello, and a smaller one.

Its samples are (1, 128, 128): 128 mels in 128 frames. Convolutions are without padding.
"""

from __future__ import annotations

from torch import nn

from .sizes import values_after


def build_sb_cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ``sb-cnn`` (Salamon and Bello 2016), for samples of at least 100x32.

    Convolutions (5x5) of 24, 48 and 48 channels with ReLU, max pooling over 4x2 after the first two; linear layers of
    64 (ReLU) and the classes, each after dropout 0.5. 241,434 parameters for (1, 128, 128) and 10 classes. The paper
    says of its pools "(4, 2)" that they run over time and frequency in that order; the study, whose tensors are
    (frequency, time), pools 4 in frequency and 2 in time, and so does this. On square samples both are equal in size.
    """
    layers = [nn.Conv2d(shape[0], 24, 5), nn.MaxPool2d((4, 2)), nn.ReLU()]
    layers += [nn.Conv2d(24, 48, 5), nn.MaxPool2d((4, 2)), nn.ReLU(), nn.Conv2d(48, 48, 5), nn.ReLU()]
    head = [nn.Flatten(), nn.Dropout(0.5), nn.Linear(values_after(layers, shape), 64), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Dropout(0.5), nn.Linear(64, classes))


def build_sb_cnn_improved(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ``sb-cnn-improved``, for samples of at least 112x112: the study's reduction, after Mushtaq and Su (2020).

    Convolutions of 24 (5x5), 36 (4x4) and 48 (3x3) channels with ReLU, each followed by max pooling over 4x4;
    linear layers of 60 (ReLU) and, after dropout, the classes. 33,634 parameters for (1, 128, 128) and 10
    classes. The rate of the dropout is not given: 0.5, as in ``sb-cnn``.
    """
    layers: list[nn.Module] = []
    channels = shape[0]
    for width, kernel in ((24, 5), (36, 4), (48, 3)):
        layers += [nn.Conv2d(channels, width, kernel), nn.MaxPool2d(4), nn.ReLU()]
        channels = width
    head = [nn.Flatten(), nn.Linear(values_after(layers, shape), 60), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Dropout(0.5), nn.Linear(60, classes))
