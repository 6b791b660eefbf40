"""Every snippet of README and docs runs.

The blocks of a page run in order, in one folder: Python blocks share their names; lines of
console blocks that begin with ``$ burnish`` are run by the command, ``$ python -m burnish.build.``
by the script; TOML blocks are recipes.
``$ make`` lines name a target of the Makefile. Any other language is text and is left alone.
"""

from __future__ import annotations

import importlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from burnish import cli
from burnish.compiler.config import CompileConfig
from opencl_support import require_device
from support import ROOT

PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))))
LONG = ("docs/cli.md", "docs/partitioning.md")
"""Pages that time what they compile, command after command: with the heavy tests."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHECKED_BY_EYE = ("git clone", "cd ", "python examples/")
TRIED_ELSEWHERE = ("burnish doctor",)
"""Starts every library there is, a process each: see ``test_cli.py`` and ``test_doctor.py``."""


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the line of the page it starts on."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 2)
        for match in BLOCK.finditer(text)
    ]


def run_console(text: str) -> None:
    for line in text.splitlines():
        if not line.startswith("$ "):
            continue
        command = line.removeprefix("$ ")
        words = shlex.split(command, comments=True)
        if command in TRIED_ELSEWHERE:
            continue
        if words[0] == "burnish":
            with pytest.raises(SystemExit) as left:
                cli.main(words[1:])
            assert left.value.code == 0, command
        elif command.startswith("python -m burnish.build."):
            with pytest.raises(SystemExit) as left:
                importlib.import_module(words[2]).main(words[3:])
            assert left.value.code == 0, command
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        else:
            assert command.startswith(CHECKED_BY_EYE), f"no test runs {command!r}"


@pytest.mark.usefixtures("short_timings")
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.heavy] * (page in LONG)) for page in PAGES],
)
def test_snippets(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page in ("docs/opencl.md", "docs/partitioning.md"):
        require_device()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python":
            # Empty lines in front keep the page's line numbers in a traceback.
            code = compile("\n" * (block.line - 1) + block.text, str(ROOT / page), "exec")
            exec(code, names)
        elif block.language == "console":
            run_console(block.text)
        elif block.language == "toml":
            CompileConfig.from_toml_text(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_local_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
