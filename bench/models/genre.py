"""Networks of the GTZAN study, which were written for Keras and tell music genres apart by MFCC.

Their samples are (time 130, coefficients 13, 1) there and (1, 13, 130) here: our tensors are (channels, frequency,
time), so every kernel and pool is turned round, and 4x13 there is (13, 4) here. All convolutions are without padding,
Keras's default, as the first one leaves a single row of coefficients, which "4x1" afterwards shows. Where the data has
another number of coefficients, the first kernel covers all of those: else the linear layers would grow without bound.

Weights begin as Keras's do (Glorot and Bengio 2010, uniform; biases zero), and batch normalisation has Keras's momentum
and epsilon. Separable convolutions have, as in Keras, no bias and no activation between their two halves. Networks end
in scores, not in a softmax: that is part of the loss.
"""

from __future__ import annotations

from torch import nn

from .regularised import Regularised
from .sizes import values_after

_FIRST = 256
_FRAMES = 4
_DENSE = 8192
_DEEP_DENSE = 1024
_L2, _DENSE_L2 = 0.04, 0.08


def build_cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ``genre-cnn``, for samples of at least 55 frames.

    Convolutions of 256, 256 and 512 channels over 4 frames each, with ReLU, max pooling over 4, 2 and 2 frames, and
    dropout 0.3; then linear layers of 8,192 (ReLU, dropout 0.3) and the classes.
    """
    return _shallow(shape, classes, separable=False)


def build_separable(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ``genre-separable``: ``genre-cnn`` with the second and third convolution depthwise-separable."""
    return _shallow(shape, classes, separable=True)


def build_deep_separable(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ``genre-deep-separable``, for samples of at least 30 frames.

    A convolution of 256 channels over 4 frames and five separable ones: 256 over 4, 128 over 3 twice, 64 over 2 twice;
    pooling over 2 frames after the second, fourth and sixth; linear layers of 1,024 and the classes. Batch
    normalisation and dropout 0.2 stand in the order that the study gives. It names no activation: ReLU here, as in its
    other two, inside of each layer as Keras has it. L2 is 0.04 on the weights of the first, second, fifth and sixth
    convolution, on both halves of separable ones (which of them the study means is open), and 0.08 on the first linear
    layer.
    """
    channels, coefficients, _ = shape
    first = nn.Conv2d(channels, _FIRST, (coefficients, _FRAMES))
    second, fifth, sixth = _separable(_FIRST, 256, 4), _separable(128, 64, 2), _separable(64, 64, 2)
    pool = nn.MaxPool2d((1, 2))
    layers = [first, nn.ReLU(), _norm(_FIRST), nn.Dropout(0.2)]
    layers += [*second, nn.ReLU(), _norm(256), pool]
    layers += [*_separable(256, 128, 3), nn.ReLU(), _norm(128), nn.Dropout(0.2)]
    layers += [*_separable(128, 128, 3), nn.ReLU(), _norm(128), pool]
    layers += [*fifth, nn.ReLU(), nn.Dropout(0.2), _norm(64)]
    layers += [*sixth, nn.ReLU(), _norm(64), pool]
    dense = nn.Linear(values_after(layers, shape), _DEEP_DENSE)
    layers += [nn.Flatten(), dense, nn.ReLU(), nn.Dropout(0.2), nn.Linear(_DEEP_DENSE, classes)]
    factors: dict[nn.Module, float] = dict.fromkeys([first, *second, *fifth, *sixth], _L2)
    return _begun_as_in_keras(Regularised(*layers, l2={**factors, dense: _DENSE_L2}))


def _shallow(shape: tuple[int, ...], classes: int, *, separable: bool) -> nn.Module:
    channels, coefficients, _ = shape
    layers: list[nn.Module] = [nn.Conv2d(channels, _FIRST, (coefficients, _FRAMES)), nn.ReLU()]
    layers += [nn.MaxPool2d((1, 4)), nn.Dropout(0.3)]
    for before, after in ((_FIRST, 256), (256, 512)):
        if separable:
            layers += _separable(before, after, _FRAMES)
        else:
            layers.append(nn.Conv2d(before, after, (1, _FRAMES)))
        layers += [nn.ReLU(), nn.MaxPool2d((1, 2)), nn.Dropout(0.3)]
    dense = nn.Linear(values_after(layers, shape), _DENSE)
    layers += [nn.Flatten(), dense, nn.ReLU(), nn.Dropout(0.3), nn.Linear(_DENSE, classes)]
    return _begun_as_in_keras(nn.Sequential(*layers))


def _separable(before: int, after: int, frames: int) -> list[nn.Module]:
    return [nn.Conv2d(before, before, (1, frames), groups=before, bias=False), nn.Conv2d(before, after, 1)]


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _begun_as_in_keras(network: nn.Module) -> nn.Module:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
