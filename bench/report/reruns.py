"""Commands that do recorded work again, as a whole or changed in a flag."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from bench import registry
from bench.contracts.errors import BenchError
from bench.contracts.options import Options
from bench.records.record import RunRecord
from bench.specs import augmentation
from bench.specs.spec import LOADING, RunSpec

_NOT_FLAGS = {"dataset", "dataset_options", "backend", "options"}
_FLAG_NAMES = {"memory_limit_bytes": "memory-limit"}


def backend_text(record: RunRecord) -> str:
    """Return the backend of a run with the options that are not its defaults, as ``NAME,KEY=VALUE``."""
    spec = record.spec
    options = _not_defaults(lambda: registry.backend_class(spec.backend).options_type, spec.options)
    return ",".join([spec.backend, *(f"{key}={value}" for key, value in options.items())])


def compare_command(runs: Sequence[RunRecord], *more: str, **changes: Any) -> str:
    """Return the `bench compare` of the backends of some runs, each once, that does the work of the first.

    ``changes`` are fields of its RunSpec that are to be others, ``more`` further flags. Runs that are loaded in
    different ways go on being so, apart from ``changes``.
    """
    first = runs[0].spec
    own = [n for n in LOADING if n not in changes and any(getattr(run.spec, n) != getattr(first, n) for run in runs)]
    loaded = [[f"{name.replace('_', '-')}={getattr(run.spec, name)}" for name in own] for run in runs]
    texts = dict.fromkeys(",".join([backend_text(run), *loading]) for run, loading in zip(runs, loaded, strict=True))
    cells = [part for text in texts for part in ("--backend", text)]
    changes |= {name: RunSpec.model_fields[name].default for name in own}
    return shlex.join(["bench", "compare", *cells, *work_flags(first, **changes), *more])


def work_flags(spec: RunSpec, **changes: Any) -> list[str]:
    """Return the flags, other than those of the backend, that make a run of this spec, apart from ``changes``."""
    flags = ["--dataset", spec.dataset]
    options = _not_defaults(lambda: registry.dataset_class(spec.dataset_name).options_type, spec.dataset_options)
    flags += [part for key, value in options.items() for part in ("--data-option", f"{key}={value}")]
    for name, field in RunSpec.model_fields.items():
        value = changes.get(name, getattr(spec, name))
        if name in _NOT_FLAGS or name in spec.implied() or value is None or value == field.default:
            continue
        flag = f"--{_FLAG_NAMES.get(name, name.replace('_', '-'))}"
        text = augmentation.text(value) if isinstance(value, tuple) else str(value)
        flags += [flag] if value is True else [flag, text]
    return flags


def _not_defaults(options_type: Any, values: dict[str, Any]) -> dict[str, Any]:
    try:
        kind: type[Options] = options_type()
        defaults = kind.model_validate({}).model_dump(mode="json")
    except BenchError:
        # A plug-in that is not installed here: all that was chosen is written out.
        defaults = {}
    return {key: "none" if v is None else v for key, v in values.items() if v != defaults.get(key)}
