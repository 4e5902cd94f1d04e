"""The rules of the layout: who may import whom, how long a file may get, what stays out of start-up."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench import registry

ROOT = Path(__file__).parent.parent
MAX_LINES = 350
CODE = [path for folder in ("bench", "loaders", "datasets") for path in sorted((ROOT / folder).rglob("*.py"))]

# From the bottom to the top; what stands in one row knows nothing of its neighbours. Names are those of modules and
# packages; within a package modules import each other freely, though never in a circle.
LAYERS = [
    ["contracts"],
    ["child", "files", "models", "registry", "stats"],
    ["measure"],
    ["specs"],
    ["stores", "records"],
    ["loading"],
    ["training"],
    ["runs"],
    ["comparisons"],
    ["regressions"],
    ["campaigns"],
    ["report"],
    ["console", "doctor", "listing", "page"],
    ["commands"],
    ["cli", "pytest_plugin"],
    ["__main__"],
]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = f"{'.' * node.level}{node.module or ''}"
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer(module: str) -> int | None:
    own = module.split(".")[1]
    return next((number for number, names in enumerate(LAYERS) if own in names), None)


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


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {module_name(path): path for path in CODE if path.is_relative_to(ROOT / "bench")}
    graph = {module: (imports(path) & modules.keys()) - {module, "bench"} for module, path in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_reads_the_environment_or_exits(path: Path) -> None:
    if path.name in {"__main__.py", "console.py"} or path == ROOT / "bench" / "commands" / "places.py":
        return
    used = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    if module_name(path) == "bench.training.trial":
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


def test_what_only_starts_the_measured_process_loads_no_torch() -> None:
    # Importing it takes seconds, and who waits for a run would wait for them twice.
    check = (
        "import importlib, pkgutil, sys, bench\n"
        "names = ('campaigns', 'commands', 'comparisons', 'records', 'regressions', 'report', 'runs', 'stores')\n"
        "for package in names:\n"
        "    path = importlib.import_module(f'bench.{package}').__path__\n"
        "    for module in pkgutil.iter_modules(path, f'bench.{package}.'):\n"
        "        importlib.import_module(module.name)\n"
        "        assert 'torch' not in sys.modules, module.name\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


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
