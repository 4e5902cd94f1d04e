"""One HTML file that needs nothing else: the content as data, the scripts that show it, and the library for charts."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from string import Template
from typing import Any

from bench.contracts.errors import BenchError

SCRIPTS = (
    "words.js",
    "table.js",
    "axes.js",
    "learned.js",
    "figures.js",
    "past.js",
    "charts.js",
    "sections.js",
    "page.js",
)
"""In the order in which they need each other. Plotly runs after the page stands there, for that takes it a while."""


class PageError(BenchError):
    """A report that cannot be written."""


def html(content: dict[str, Any]) -> str:
    """Return the page. Nothing of ``content`` is interpreted as HTML, and the page can load nothing."""
    import plotly.offline

    # Browsers read a file's line ends as \n, and a hash is of what they read.
    library = plotly.offline.get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    scripts = {"app": "\n".join(_asset(name) for name in SCRIPTS), "plotly": library}
    for name, script in scripts.items():
        if "</script" in script.lower() or ("<!--" in script and "<script" in script.lower()):
            raise PageError(f"The script {name} cannot stand in an HTML file: it would end there. Use another plotly.")
    template = Template(_asset("page.html"))
    return template.substitute(
        policy=_policy(scripts.values()), style=_asset("page.css"), data=embedded_json(content), **scripts
    )


def embedded_json(content: Any) -> str:
    """Return JSON that holds no character by which a script element could end; raises ValueError for NaN."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _policy(scripts: Any) -> str:
    """Allow these very scripts, styles and pictures that the page itself makes, and nothing else: no network."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
