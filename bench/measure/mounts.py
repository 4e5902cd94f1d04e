"""The mount that holds a path, as proc_pid_mountinfo(5) describes it.

The kernel gives its id for an open descriptor (proc_pid_fdinfo(5)), so nested mounts, mounts over mounts and
symbolic links need no care.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo; ``options`` are those of the mount, then those of the file system."""

    device_number: str
    """Major and minor, as in ``8:1``; the major number is 0 where no block device is mounted directly."""

    type: str
    source: str
    options: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """Return the value of an option, or None where it is not set."""
        values = dict(option.partition("=")[::2] for option in self.options)
        return values.get(name)


def mount_of(path: Path, proc: Path = PROC) -> Mount | None:
    """Return the mount that holds an existing path, or None where procfs does not tell.

    Raises:
        OSError: The path does not exist, or cannot be reached.
    """
    descriptor = os.open(path, os.O_PATH if hasattr(os, "O_PATH") else os.O_RDONLY)
    try:
        facts = (proc / f"self/fdinfo/{descriptor}").read_text()
        lines = (proc / "self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    found = re.search(r"^mnt_id:\s*(\d+)$", facts, re.MULTILINE)
    for line in lines:
        # The optional fields before the dash vary in number; those behind it can be empty.
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if found is not None and fields[0] == found[1]:
            kind, source, *rest = after.split(" ")
            options = ",".join([fields[5], *rest[:1]]).split(",")
            return Mount(fields[2], kind, unescape(source), tuple(dict.fromkeys(map(unescape, options))))
    return None


def unescape(text: str) -> str:
    r"""Decode the octal escapes of mountinfo: ``\040`` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)
