"""Networks of the ESC-50 study.

Its samples are (1, 64, 862): 64 mels in 862 frames. Kernels and strides are (frequency, time), as our tensors are. All
networks end in scores, and are trained with cross-entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .sizes import values_after

_KERNEL = (5, 20)
_HIDDEN = 64


def build_baseline(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ``esc-baseline``, for samples of at least 16x61.

    Three convolutions of 8 channels (5x20, no padding) with ReLU, one max pooling over 4x4, and three linear layers.
    Of 20,904 values the linear layers make 5,226 and 326, a quarter and a 64th: of other samples they make those
    shares, too. Between them stands ReLU, which the study does not mention; without it they would be one linear layer.
    """
    layers: list[nn.Module] = []
    for channels in (shape[0], 8, 8):
        layers += [nn.Conv2d(channels, 8, _KERNEL), nn.ReLU()]
    layers.append(nn.MaxPool2d(4))
    values = values_after(layers, shape)
    first, second = _narrowed(values, classes)
    layers += [nn.Flatten(), nn.Linear(values, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(second, classes))


def build_vgg(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ``esc-vgg``, for samples of at least 36x246.

    Three blocks of two convolutions (5x20, padding 1) of 8, 16 and 32 channels, each with batch normalisation and
    ReLU, as in VGG with batch normalisation; max pooling over 2x2 and dropout 0.2 end each block. Of 9,984 values the
    linear layers make 2,496 (dropout 0.2) and 156 (dropout 0.5), a quarter and a 64th, each with batch normalisation
    and ReLU, where the study names the former only.
    """
    channels = shape[0]
    layers: list[nn.Module] = []
    for width in (8, 16, 32):
        for before in (channels, width):
            layers += [nn.Conv2d(before, width, _KERNEL, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Dropout(0.2)]
        channels = width
    values = values_after(layers, shape)
    layers.append(nn.Flatten())
    for width, dropout in zip(_narrowed(values, classes), (0.2, 0.5), strict=True):
        layers += [nn.Linear(values, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
        values = width
    return nn.Sequential(*layers, nn.Linear(values, classes))


def build_lstm(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ``esc-lstm``, for samples of any size: one LSTM layer over the frames, 64 wide, and a linear layer.

    A step reads all channels and frequencies of one frame. The study takes the last step that is not padding;
    samples here are all of one length and bring no other with them, so it is the last one.
    """
    return _OverFrames(shape, classes)


def build_crnn_attention(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ``esc-crnn-attention``, for samples of at least 5x20.

    A convolution of 8 channels (5x20, stride 2x8), two GRU layers over what are 106 steps of 30 x 8 = 240 values, 64
    wide, with dropout 0.1 between them, attention over the steps, and a linear layer. The study leaves open that there
    is a ReLU after the convolution, and that the GRU runs forwards only.
    """
    return _Attentive(shape, classes)


def build_weak(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ``esc-weak``, for samples of at least 64x64: after Kumar et al. (2018), who learn from weak labels.

    Pairs of 3x3 convolutions (padding 1) of 16, 32, 64, 128 and 256 channels, each pair followed by 2x2 max
    pooling; 3x3 of 512 and 2x2 of 1,024 channels; 1x1 with a channel and a sigmoid for each class. Batch
    normalisation and ReLU follow each convolution but the last, also the two of 512 and 1,024, for which the study does
    not say so. Padding and pooling are those with which 1,250 values are left for a linear layer, one for each of
    50 classes in 25 segments.

    Kumar et al. average the sigmoids and train each as a yes or no, since their clips can have several labels. In the
    study the sigmoids lie inside, and a linear layer weighs them: its outputs are scores, without a bound, so
    cross-entropy over them is right for clips of one label each, and is what all networks here are trained with.
    """
    channels = shape[0]
    layers: list[nn.Module] = []
    for width in (16, 32, 64, 128, 256):
        layers += [*_normalised(channels, width, 3, padding=1), *_normalised(width, width, 3, padding=1)]
        layers.append(nn.MaxPool2d(2))
        channels = width
    layers += [*_normalised(channels, 512, 3, padding=1), *_normalised(512, 1024, 2, padding=0)]
    layers += [nn.Conv2d(1024, classes, 1), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(values_after(layers, shape), classes))


def _narrowed(values: int, classes: int) -> tuple[int, int]:
    # Never narrower than the output: small samples leave few values.
    return max(classes, values // 4), max(classes, values // 64)


def _normalised(before: int, after: int, kernel: int, *, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, padding=padding), nn.BatchNorm2d(after), nn.ReLU()]


def _frames(x: Tensor) -> Tensor:
    """Turn ``(n, channels, frequency, time)`` into ``(n, time, channels * frequency)``."""
    return x.flatten(1, 2).transpose(1, 2)


class _OverFrames(nn.Module):
    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, frequencies, _ = shape
        self.lstm = nn.LSTM(channels * frequencies, _HIDDEN, batch_first=True)
        self.head = nn.Linear(_HIDDEN, classes)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.lstm(_frames(x))
        scores: Tensor = self.head(steps[:, -1])
        return scores


class _Attentive(nn.Module):
    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, frequencies, _ = shape
        self.convolution = nn.Conv2d(channels, 8, _KERNEL, stride=(2, 8))
        values = values_after([self.convolution], (channels, frequencies, _KERNEL[1]))
        self.gru = nn.GRU(values, _HIDDEN, num_layers=2, dropout=0.1, batch_first=True)
        self.attention = nn.Sequential(nn.Linear(_HIDDEN, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, 1))
        self.head = nn.Linear(_HIDDEN, classes)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.gru(_frames(self.convolution(x).relu()))
        weights = torch.softmax(self.attention(steps), dim=1)
        scores: Tensor = self.head((weights * steps).sum(1))
        return scores
