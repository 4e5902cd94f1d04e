"""What stands beside the numbers: on what they were measured, what puts them in doubt, and which runs gave none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.records.groups import Work
from bench.records.record import RunRecord
from bench.report.tables import cache_text, data_label, options_text, run_label

EXAMPLES = 5
"""How many messages of one kind are shown: they often differ in a number alone."""

FAILURES = 300


def environment(records: Sequence[RunRecord]) -> list[list[str]]:
    """Return on what runs of one work were measured, as name and text; several values where runs differ."""
    rows: dict[str, dict[str, None]] = {}
    for record in records:
        for name, text in _facts(record):
            rows.setdefault(name, {})[text] = None
    return [[name, "; ".join(values)] for name, values in rows.items()]


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    known = record.environment
    found = [("processor", f"{known.get('cpu') or 'unknown'}, {known.get('cpu_count')} cores")]
    if memory_bytes := known.get("memory_bytes"):
        found.append(("memory", f"{memory_bytes / 2**30:.1f} GiB"))
    found.append(("GPU", _gpu(record)))
    found.append(("system", f"{known.get('system')} {known.get('kernel')}"))
    places = [str(known[name]) for name in ("container", "product") if known.get(name)]
    places += ["virtual machine"] if known.get("virtual_machine") else []
    found += [("runs in", ", ".join(places))] if places else []
    found += [("storage", _storage(known))]
    found.append(("torch threads", str(known.get("torch_threads", "unknown"))))
    libraries = known.get("libraries") or {}
    versions = [f"Python {known.get('python')}", *(f"{name} {version}" for name, version in libraries.items())]
    found.append(("versions", ", ".join(versions)))
    found.append(("bench", _harness(known)))
    return found


def _gpu(record: RunRecord) -> str:
    name = record.environment.get("gpu")
    if isinstance(name, dict):
        name = name.get("name")
    return str(name or (record.gpu.name if record.gpu else "none"))


def _storage(known: dict[str, Any]) -> str:
    storage = known.get("storage")
    if not isinstance(storage, dict):
        return str(known.get("store_file_system") or "unknown")
    parts = [str(storage.get("file_system")), str(storage.get("device") or storage.get("source") or "")]
    parts += ["over the network"] if storage.get("network") else []
    parts += ["in memory"] if storage.get("memory") else []
    for disk in storage.get("disks") or []:
        kind = {True: "rotational, by what the system says", False: "not rotational"}.get(disk.get("rotational"), "")
        parts.append(str(disk.get("model") or "disk of unknown model") + (f" ({kind})" if kind else ""))
    if (ahead := storage.get("read_ahead_kb")) is not None:
        parts.append(f"read-ahead {ahead} KiB")
    return ", ".join(filter(None, parts))


def _harness(known: dict[str, Any]) -> str:
    revision = str(known.get("git_revision") or "")[:10]
    changed = ", with changes" if known.get("git_modified") else ""
    return f"{known.get('bench', 'unknown version')}{f' ({revision}{changed})' if revision else ''}"


def warnings(work: Work, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the warnings of a work by kind: of how many runs, of which methods, and what they say."""
    found: dict[str, dict[str, Any]] = {}
    for group, label in zip(work.groups, labels, strict=True):
        for record in group.records:
            for warning in record.warnings:
                # With several runs the spread is known, whatever each of them says of itself.
                if warning.kind == "no-repeats" and len(group.records) > 1:
                    continue
                kind = found.setdefault(warning.kind, {"kind": warning.kind, "runs": 0, "methods": {}, "texts": {}})
                kind["runs"] += 1
                kind["methods"][label] = kind["methods"].get(label, 0) + 1
                kind["texts"][warning.message] = label
    return [
        {
            "kind": kind["kind"],
            "runs": kind["runs"],
            "methods": [[label, count] for label, count in kind["methods"].items()],
            "texts": [[label, text] for text, label in list(kind["texts"].items())[:EXAMPLES]],
            "more": max(0, len(kind["texts"]) - EXAMPLES),
        }
        for kind in sorted(found.values(), key=lambda kind: -kind["runs"])
    ]


def failures(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return runs without a result, equal ones as one row with their number, the newest first."""
    rows: dict[tuple[str, ...], int] = {}
    without = [record for record in records if record.status != "ok"]
    for record in sorted(without, key=lambda record: record.started_at, reverse=True):
        error = record.error
        key = (
            record.status,
            data_label(record),
            " ".join(filter(None, [run_label(record), options_text(record)])),
            f"{record.spec.model}, workers: {record.spec.workers}, {cache_text(record)}",
            error.phase if error else "",
            error.message if error else "no reason was recorded",
            record.started_at[:10],
        )
        rows[key] = rows.get(key, 0) + 1
    listed = [{"runs": count, "cells": list(key)} for key, count in list(rows.items())[:FAILURES]]
    return {"runs": len(without), "rows": listed, "more": max(0, len(rows) - FAILURES)}
