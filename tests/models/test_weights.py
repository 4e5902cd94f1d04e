"""Weights from files: what fits is loaded, what does not is named, and nothing in a file is run."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from bench import registry
from bench.models.weights import WeightsError, load_weights
from bench.records.checks import warnings_for
from bench.records.record import RunRecord, read_record
from bench.specs.spec import RunSpec
from bench.training.network import make_network

RECORD = Path(__file__).parent.parent / "core" / "records" / "version-2.json"
FITTED = ("conv1", "fc")


def resnet(shape: tuple[int, ...] = (3, 96, 96), classes: int = 5) -> nn.Module:
    return registry.model_builder("resnet18")(shape, classes)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision publishes them, for 3 channels and 1,000 classes."""
    torch.manual_seed(11)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


def test_weights_of_the_same_network_are_all_loaded(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    theirs = resnet()
    torch.save(theirs.state_dict(), path)
    ours = resnet()
    loaded = load_weights(ours, path, FITTED)
    assert loaded.fresh_layers == ()
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("shape", "classes", "fresh"),
    [((3, 96, 96), 7, ("fc",)), ((1, 96, 96), 1000, ("conv1",)), ((3, 32, 32), 7, FITTED)],
)
def test_layers_that_depend_on_the_data_stay_as_drawn_and_are_named(published, shape, classes, fresh) -> None:
    network = resnet(shape, classes)
    drawn = {name: weight.clone() for name, weight in network.state_dict().items()}
    assert load_weights(network, published, FITTED).fresh_layers == fresh
    given = torch.load(published, weights_only=True)
    for name, weight in network.state_dict().items():
        expected = drawn if name.partition(".")[0] in fresh else given
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("name", ["densenet121", "inception", "resnet50", "resnet18-audio", "vgg19"])
def test_published_files_fit_every_network_of_torchvision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {
        "densenet121": lambda: torchvision.models.densenet121(weights=None),
        "inception": lambda: torchvision.models.inception_v3(weights=None, init_weights=False),
        "resnet50": lambda: torchvision.models.resnet50(weights=None),
        "resnet18-audio": lambda: torchvision.models.resnet18(weights=None),
        "vgg19": lambda: torchvision.models.vgg19(weights=None),
    }
    with torch.device("meta"):
        state = theirs[name]().state_dict()
        network = registry.model_builder(name)((1, 96, 96), 7)
    if name == "densenet121":
        # As in the file that torchvision has published.
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", key): w for key, w in state.items()}
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
        state = {key: weight for key, weight in state.items() if not key.endswith("num_batches_tracked")}
    monkeypatch.setattr("bench.models.weights.torch.load", lambda *args, **kwargs: state)
    given: list[str] = []
    monkeypatch.setattr(network, "load_state_dict", lambda state, strict: given.extend(state))
    loaded = load_weights(network, Path(__file__), registry.MODELS[name].fitted)
    first, last = registry.MODELS[name].fitted[:2]
    assert loaded.fresh_layers == (first, last)
    counters = {key for key in network.state_dict() if key.endswith("num_batches_tracked")}
    rest = {key for key in network.state_dict() if not key.startswith((f"{first}.", f"{last}."))}
    assert set(given) | counters == rest | counters


def test_other_networks_are_refused_in_one_line(published: Path, tmp_path: Path) -> None:
    cnn = registry.model_builder("cnn")
    path = tmp_path / "cnn.pth"
    torch.save(cnn((3, 32, 32), 10).state_dict(), path)
    with pytest.raises(WeightsError, match=r"11\.weight is 10x128 in the file and 3x128 in the network") as caught:
        load_weights(cnn((3, 32, 32), 3), path)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match=r"0\.weight is missing; 1\.weight is missing; .* and \d+ more\."):
        load_weights(cnn((3, 32, 32), 10), published)
    with pytest.raises(WeightsError, match=r"bn1\.weight is missing; .* and \d+ more\."):
        load_weights(resnet(), path, FITTED)


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "cannot be read as a state dict"),
        (b"no weights at all", "cannot be read as a state dict"),
        (pickle.dumps({"a": Harmful()}), "cannot be read as a state dict"),
        ({"epoch": 3, "model": {"a": torch.zeros(1)}}, "'epoch' is no tensor. Save network.state_dict() alone."),
        ([torch.zeros(1)], "holds no state dict"),
        ({}, "holds no state dict"),
    ],
    ids=["empty", "text", "code", "checkpoint", "list", "nothing"],
)
def test_files_that_are_no_state_dict(content, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError) as caught:
        load_weights(resnet(), path)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("harmed").exists()
    with pytest.raises(WeightsError, match="Is a directory"):
        load_weights(resnet(), tmp_path)


def test_a_run_begins_with_them_and_says_which_layers_did_not(published: Path) -> None:
    spec = RunSpec(backend="memmap", dataset="toys", model="resnet18", weights=str(published))
    network, facts = make_network(spec, (3, 96, 96), 7)
    assert torch.equal(network.conv1.weight, torch.load(published, weights_only=True)["conv1.weight"])
    assert facts["weights"]["fresh_layers"] == ["fc"]
    record: RunRecord = read_record(RECORD)
    record = record.model_copy(update={"spec": spec, "environment": {**record.environment, **facts}})
    (message,) = [warning.message for warning in warnings_for(record) if warning.kind == "fresh-layers"]
    assert f"Not all weights are those of {published}: fc began at random" in message


def test_without_a_file_or_a_network_there_are_no_weights() -> None:
    spec = RunSpec(backend="memmap", dataset="toys", model="cnn")
    assert make_network(spec, (3, 8, 8), 3)[1] == {}
    assert make_network(spec.model_copy(update={"model": "none"}), (3, 8, 8), 3) == (None, {})
