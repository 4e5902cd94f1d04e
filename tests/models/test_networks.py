"""Every network at the shape of its study: sizes are those that are published, and one step can be trained."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import Tensor, nn

from bench import registry
from bench.models.regularised import parameter_groups
from bench.specs.protocol import DEFAULTS, Optimizer
from bench.training.trainer import Recipe, Trainer

CPU = torch.device("cpu")
CIFAR, MASKS = ((3, 32, 32), 10), ((3, 512, 512), 2)
FSD, GTZAN, ESC, URBAN = ((1, 13, 40), 41), ((1, 13, 130), 10), ((1, 64, 862), 50), ((1, 128, 128), 10)
MADE_FOR = {
    "cnn": CIFAR,
    "convnet4": FSD,
    "densenet121": CIFAR,
    "esc-baseline": ESC,
    "esc-crnn-attention": ESC,
    "esc-lstm": ESC,
    "esc-vgg": ESC,
    "esc-weak": ESC,
    "genre-cnn": GTZAN,
    "genre-deep-separable": GTZAN,
    "genre-separable": GTZAN,
    "inception": MASKS,
    "resnet18": CIFAR,
    "resnet18-audio": FSD,
    "resnet50": CIFAR,
    "resnet50-audio": FSD,
    "sb-cnn": URBAN,
    "sb-cnn-improved": URBAN,
    "vgg19": ESC,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine the threads of torch wait for each other ten times as long as they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """On the meta device: sizes without memory."""
    with torch.device("meta"):
        return registry.model_builder(name)(shape, classes)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def inputs_of(network: nn.Module, kind: type[nn.Module], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The shapes, without the batch, of what layers of a kind are given."""
    seen: list[tuple[int, ...]] = []
    for layer in network.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(lambda layer, inputs, output: seen.append(tuple(inputs[0].shape[1:])))
    network.eval()(torch.zeros(2, *shape, device="meta"))
    return seen


def test_every_network_is_here() -> None:
    assert sorted(MADE_FOR) == list(registry.MODELS)
    assert {name: entry.made_for for name, entry in registry.MODELS.items()} == MADE_FOR


@pytest.mark.parametrize("name", MADE_FOR)
def test_one_step_is_trained_at_the_shape_of_the_study(name: str) -> None:
    shape, classes = MADE_FOR[name]
    torch.manual_seed(0)
    model = registry.model_builder(name)(shape, classes)
    before = [parameter.detach()[..., :1].clone() for parameter in model.parameters()]
    trainer = Trainer(model, CPU, amp=False)
    # Without momentum, of which a network with 110 million parameters would keep a second copy.
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    samples = registry.MODELS[name].least_batch
    loss, right = trainer.step(torch.randn(samples, *shape), torch.arange(samples))
    assert torch.isfinite(loss)
    assert 0 <= right <= samples
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert any(not torch.equal(a, b.detach()[..., :1]) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", [name for name in MADE_FOR if name != "vgg19"])
def test_every_network_but_one_is_deterministic_on_cuda(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    shape, classes = MADE_FOR[name]
    x, y = torch.randn(4, *shape).cuda(), (torch.arange(4) % classes).cuda()

    def losses() -> list[float]:
        torch.manual_seed(3)
        trainer = Trainer(registry.model_builder(name)(shape, classes), torch.device("cuda"), amp=False)
        return [float(trainer.step(x, y)[0]) for _ in range(3)]

    torch.use_deterministic_algorithms(mode=True)
    try:
        assert losses() == losses()
    finally:
        torch.use_deterministic_algorithms(mode=False)


@pytest.mark.parametrize("name", MADE_FOR)
def test_other_channels_sizes_and_classes(name: str) -> None:
    shape = (2, 131, 260)
    network = build(name, shape, 7)
    assert network.eval()(torch.zeros(3, *shape, device="meta")).shape == (3, 7)


@pytest.mark.parametrize("name", MADE_FOR)
def test_the_smallest_sample_is_taken_and_no_smaller_one(name: str) -> None:
    height, width = registry.MODELS[name].smallest

    def train(height: int, width: int) -> Tensor:
        network = build(name, (1, height, width), 3)
        # What is normalised over a single value needs more than one sample.
        return network.train()(torch.zeros(3, 1, height, width, device="meta"))

    assert train(height, width).shape == (3, 3)
    for smaller in ((height - 1, width), (height, width - 1)):
        if min(smaller) > 0:
            # Torch only warns of layers without any weight.
            with pytest.raises((RuntimeError, ValueError, UserWarning)):
                train(*smaller)


@pytest.mark.parametrize("name", MADE_FOR)
def test_the_fewest_samples_of_a_batch(name: str) -> None:
    shape, classes = MADE_FOR[name]
    network = build(name, shape, classes).train()
    one = torch.zeros(1, *shape, device="meta")
    if registry.MODELS[name].least_batch == 1:
        assert network(one).shape == (1, classes)
        return
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(one)


@pytest.mark.parametrize(("name", "published"), [("sb-cnn", 241_434), ("sb-cnn-improved", 33_634)])
def test_published_numbers_of_parameters(name: str, published: int) -> None:
    assert parameters(build(name, *URBAN)) == published


@pytest.mark.parametrize(
    ("name", "linear"),
    [
        ("esc-baseline", [20_904, 5_226, 326]),
        ("esc-vgg", [9_984, 2_496, 156]),
        ("esc-weak", [1_250]),
        ("genre-cnn", [2_560, 8_192]),
        ("genre-separable", [2_560, 8_192]),
        ("genre-deep-separable", [832, 1_024]),
        ("sb-cnn", [2_400, 64]),
        ("sb-cnn-improved", [48, 60]),
        ("convnet4", [256]),
        ("resnet18-audio", [512]),
        ("resnet50-audio", [2_048]),
        ("vgg19", [25_088, 4_096, 4_096]),
    ],
)
def test_what_the_linear_layers_are_given(name: str, linear: list[int]) -> None:
    shape, classes = MADE_FOR[name]
    assert inputs_of(build(name, shape, classes), nn.Linear, shape) == [(values,) for values in linear]


def test_the_recurrent_networks_read_frames_in_order() -> None:
    shape, classes = ESC
    assert inputs_of(build("esc-lstm", shape, classes), nn.LSTM, shape) == [(862, 64)]
    assert inputs_of(build("esc-crnn-attention", shape, classes), nn.GRU, shape) == [(106, 240)]
    # The last frame is the last step, and frequencies stay together.
    network = registry.model_builder("esc-lstm")((1, 4, 3), 2).eval()
    x = torch.randn(1, 1, 4, 3)
    expected = network.head(network.lstm(torch.stack([x[0, 0, :, t] for t in range(3)])[None])[0][:, -1])
    assert torch.equal(network(x), expected)


def test_kernels_run_over_time_as_in_the_study() -> None:
    network = build("genre-cnn", *GTZAN)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size for layer in convolutions] == [(13, 4), (1, 4), (1, 4)]
    assert [layer.out_channels for layer in convolutions] == [256, 256, 512]
    # Time 127, 28 and 11 after the convolutions, and always one row of coefficients.
    assert inputs_of(network, nn.MaxPool2d, GTZAN[0]) == [(256, 1, 127), (256, 1, 28), (512, 1, 11)]


@pytest.mark.parametrize(
    ("name", "expected"),
    # Keras counts: a separable convolution is kernel * channels + channels * filters + filters.
    [
        ("genre-cnn", 13_568 + 262_400 + 524_800 + 20_979_712 + 81_930),
        ("genre-separable", 13_568 + (1_024 + 65_792) + (1_024 + 131_584) + 20_979_712 + 81_930),
        (
            "genre-deep-separable",
            13_568
            + (1_024 + 65_792)
            + (768 + 32_896)
            + (384 + 16_512)
            + (256 + 8_256)
            + (128 + 4_160)
            + 2 * (256 + 256 + 128 + 128 + 64 + 64)
            + 852_992
            + 10_250,
        ),
    ],
)
def test_the_keras_networks_have_as_many_parameters_as_in_keras(name: str, expected: int) -> None:
    assert parameters(build(name, *GTZAN)) == expected


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("densenet121", torchvision.models.densenet121),
        ("resnet18", torchvision.models.resnet18),
        ("resnet50", torchvision.models.resnet50),
        ("vgg19", torchvision.models.vgg19),
        ("inception", lambda **given: torchvision.models.inception_v3(**given, aux_logits=False, init_weights=False)),
    ],
)
def test_networks_of_torchvision_are_theirs_but_for_first_and_last_layer(name: str, theirs) -> None:
    with torch.device("meta"):
        expected = theirs(weights=None, num_classes=7)
    assert parameters(build(name, (3, 224, 224), 7)) == parameters(expected)
    fitted = registry.MODELS[name].fitted
    shapes = {key: value.shape for key, value in expected.state_dict().items()}
    for shape in ((1, 96, 96), (3, 80, 80)):
        ours = {key: value.shape for key, value in build(name, shape, 5).state_dict().items()}
        assert ours.keys() == shapes.keys()
        assert all(shapes[key] == ours[key] for key in ours if key.rpartition(".")[0] not in fitted)


def test_audio_resnets_drop_and_normalise_before_the_last_layer() -> None:
    network = registry.model_builder("resnet18-audio")(*FSD)
    assert [type(layer) for layer in network.fc] == [nn.Dropout, nn.BatchNorm1d, nn.Linear]
    assert network.fc[0].p == 0.1
    assert network.conv1.in_channels == 1


def test_l2_is_that_of_keras() -> None:
    torch.manual_seed(1)
    model = registry.model_builder("genre-deep-separable")((1, 2, 30), 3)
    x, y = torch.randn(4, 1, 2, 30), torch.tensor([0, 1, 2, 0])
    factors = dict.fromkeys((0.04, 0.08), 0)
    penalty = torch.zeros(())
    for name, parameter in model.named_parameters():
        if factor := model.l2.get(name):
            penalty = penalty + factor * (parameter**2).sum()
            factors[factor] += 1
    # The first convolution, three separable ones of two halves, and the first linear layer.
    assert (factors[0.04], factors[0.08]) == (7, 1)
    torch.manual_seed(2)
    loss = nn.functional.cross_entropy(model(x), y)
    expected = torch.autograd.grad(loss + penalty, list(model.parameters()))
    started = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(parameter_groups(model), lr=1.0)
    torch.manual_seed(2)
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    for before, now, gradient in zip(started, model.parameters(), expected, strict=True):
        torch.testing.assert_close(before - now, gradient)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "radam", "rmsprop"])
def test_weight_decay_comes_on_top_for_every_optimizer(optimizer: Optimizer) -> None:
    deep = registry.model_builder("genre-deep-separable")((1, 2, 30), 3)
    recipe = Recipe(optimizer, weight_decay=0.001, momentum=DEFAULTS[optimizer].momentum)
    found = recipe.optimizer_of(deep).param_groups
    assert sorted(group["weight_decay"] for group in found) == pytest.approx([0.001, 0.081, 0.161])
    assert not any(group.get("decoupled_weight_decay") for group in found)


def test_other_networks_have_one_group() -> None:
    (only,) = parameter_groups(cnn := registry.model_builder("cnn")((3, 32, 32), 10))
    assert only["weight_decay"] == 0
    assert all(a is b for a, b in zip(only["params"], cnn.parameters(), strict=True))


def test_keras_networks_begin_as_in_keras() -> None:
    network = registry.model_builder("genre-deep-separable")((1, 13, 130), 10)
    linear = next(layer for layer in network.modules() if isinstance(layer, nn.Linear))
    assert float(linear.weight.detach().abs().max()) == pytest.approx((6 / (832 + 1024)) ** 0.5, rel=1e-3)
    assert not linear.bias.detach().any()
    norm = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)


@pytest.mark.parametrize("name", ["esc-lstm", "esc-crnn-attention"])
def test_recurrent_networks_are_deterministic(name: str) -> None:
    shape, classes = (1, 16, 60), 4
    x, y = torch.randn(8, *shape), torch.arange(8) % classes

    def losses() -> list[float]:
        torch.manual_seed(3)
        trainer = Trainer(registry.model_builder(name)(shape, classes), CPU, amp=False)
        return [float(trainer.step(x, y)[0]) for _ in range(3)]

    torch.use_deterministic_algorithms(mode=True)
    try:
        first, again = losses(), losses()
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert first == again
    assert first[-1] < first[0]
