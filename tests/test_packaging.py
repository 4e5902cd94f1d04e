"""What a wheel of this tree holds, and that it works in an environment of its own."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    for name in files:
        if (ROOT / name).is_file() and not name.startswith(("tests/", "results/")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, source],
        check=True,
        capture_output=True,
        timeout=240,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_one_import_package_and_shadows_nothing(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"bench"}
    for wanted in ("bench/loaders/zarr_.py", "bench/datasets/cifar10.py", "bench/py.typed", "bench/models/cnn.py"):
        assert wanted in names
    (metadata,) = (name for name in names if name.endswith("top_level.txt"))
    assert zipfile.ZipFile(wheel).read(metadata).decode().split() == ["bench"]


def test_the_installed_wheel_finds_its_plugins_and_leaves_other_datasets_alone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
        capture_output=True,
    )
    (site / "datasets.py").write_text("name = 'another package'\n")
    check = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import datasets; assert datasets.name == 'another package'\n"
        "import bench; assert bench.__file__.startswith(sys.argv[1]), bench.__file__\n"
        "from bench import registry\n"
        "assert all(registry.backend_class(n).__module__.startswith('bench.loaders.') for n in registry.BACKENDS)\n"
        "assert all(registry.dataset_class(n).__module__.startswith('bench.datasets.') for n in registry.DATASETS)\n"
    )
    subprocess.run([sys.executable, "-c", check, site], cwd=tmp_path, check=True, capture_output=True)
