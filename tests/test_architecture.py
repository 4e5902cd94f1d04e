"""The rules of the layout: who may import whom, how long a file may get, what stays out of start-up."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench import registry

ROOT = Path(__file__).parent.parent
MAX_LINES = 350
CODE = [path for folder in ("bench", "loaders", "datasets") for path in sorted((ROOT / folder).rglob("*.py"))]

# From the bottom to the top; a module imports only from rows below its own. Names are prefixes.
LAYERS = [
    ["bench.contracts"],
    ["bench.child"],
    [
        "bench.registry",
        "bench.protocol",
        "bench.sampling",
        "bench.learned",
        "bench.models",
        "bench.digest",
        "bench.stats",
        "bench.files",
        "bench.calibration",
        "bench.content",
        "bench.contact_sheet",
        "bench.measure",
    ],
    ["bench.augmentation", "bench.pairs"],
    ["bench.spec", "bench.unpaired", "bench.evaluation", "bench.predictions", "bench.studies"],
    ["bench.order", "bench.suite"],
    ["bench.store", "bench.verification", "bench.loading", "bench.record", "bench.job"],
    ["bench.truth", "bench.attempt", "bench.flat", "bench.schema"],
    [
        "bench.prepare",
        "bench.training",
        "bench.network",
        "bench.suitability",
        "bench.delivery",
        "bench.results",
        "bench.metrics",
        "bench.campaign",
        "bench.comparability",
        "bench.estimate",
    ],
    [
        "bench.comparison",
        "bench.facets",
        "bench.cross_validation",
        "bench.groups",
        "bench.checks",
        "bench.tuning",
        "bench.matrix",
        "bench.shortlist",
        "bench.epochs",
        "bench.validation",
    ],
    ["bench.ceiling", "bench.checkpoint", "bench.lessons"],
    ["bench.search_space", "bench.ranking", "bench.baseline", "bench.held", "bench.history", "bench.tradeoffs"],
    ["bench.yardsticks"],
    ["bench.criteria", "bench.regression", "bench.folds"],
    ["bench.inspection", "bench.advice", "bench.drifted", "bench.exchange", "bench.tracking"],
    ["bench.in_process", "bench.isolated", "bench.trial", "bench.report", "bench.cleaning", "bench.findings"],
    ["bench.observer"],
    ["bench.time_limit"],
    ["bench.runner", "bench.listing", "bench.doctor"],
    ["bench.laboratory", "bench.series"],
    ["bench.calibrated", "bench.matrix_runner", "bench.survey"],
    ["bench.page"],
    ["bench.console", "bench.flags"],
    ["bench.commands", "bench.pytest_plugin"],
    ["bench.cli"],
    ["bench.__main__"],
]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}"}
            if node.module == "bench":
                found |= {f"bench.{alias.name}" for alias in node.names}
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer(module: str) -> int | None:
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    return None


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_import_contracts_and_siblings_only(path: Path) -> None:
    if path.is_relative_to(ROOT / "bench"):
        named = {name for name in imports(path) if name.startswith(("bench.loaders", "bench.datasets", "loaders"))}
        assert not named, "the core names plug-ins only as strings in the registry"
        return
    foreign = {
        name for name in imports(path) if name.split(".")[0] == "bench" and not name.startswith("bench.contracts")
    }
    assert not foreign


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    module = module_name(path)
    if module in {"bench", "loaders", "datasets"} or not module.startswith("bench"):
        return
    own = layer(module)
    assert own is not None, f"{module} has no place in LAYERS"
    for name in imports(path):
        if name.startswith("bench.") and (other := layer(name)) is not None:
            same_package = module.split(".")[:2] == name.split(".")[:2]
            assert other < own or same_package, f"{module} imports {name}"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_reads_the_environment_or_exits(path: Path) -> None:
    if path.name in {"__main__.py", "console.py"} or path == ROOT / "bench" / "commands" / "places.py":
        return
    used = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    if module_name(path) == "bench.trial":
        # cuBLAS takes its workspace setting from the environment alone.
        used.discard("os.environ")
    assert not used & {"os.environ", "os.getenv", "sys.exit", "sys.stdout", "sys.argv"}


def test_start_up_loads_neither_torch_nor_a_backend() -> None:
    check = (
        "import sys, bench, bench.cli\n"
        "try:\n    bench.cli.app(['--help'], standalone_mode=False)\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'h5py', 'zarr', 'PIL', 'rich', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert not [m for m in sys.modules if m.startswith(('bench.loaders.', 'bench.datasets.'))]\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_listing_backends_does_not_load_torch() -> None:
    check = (
        "import sys\nfrom bench import listing\nlisting.backends()\n"
        "[listing.backend_options(name) for name in ('hdf5', 'zarr', 'filesystem', 'memmap', 'memory')]\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_packages_in_pyproject_match_the_folders() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    expected = {"bench", "bench.loaders", "bench.datasets"}
    for init in (ROOT / "bench").rglob("__init__.py"):
        expected.add(module_name(init))
    assert sorted(expected) == settings["packages"]


def test_the_registry_is_sorted_and_complete() -> None:
    for entries, folder in ((registry.BACKENDS, "loaders"), (registry.DATASETS, "datasets"), (registry.MODELS, None)):
        assert list(entries) == sorted(entries)
        for entry in entries.values():
            module = entry.target.partition(":")[0]
            path = module.replace(".", "/") + ".py" if folder is None else f"{folder}/{module.rsplit('.', 1)[1]}.py"
            assert (ROOT / path).is_file()
