"""The guide for those who write handlers says what the code does, and shows code that is tested."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from handlers.context import Context
from handlers.registry import Registry

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "handlers.md").read_text("utf-8")
RECIPES = sorted((ROOT / "handlers" / "recipes").glob("[!_]*.py"))
TAKEN_FROM = [path.read_text("utf-8") for path in (*RECIPES, ROOT / "handlers" / "examples.py")]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
BY_THEMSELVES = [block for block in BLOCKS if not any(block in text for text in TAKEN_FROM)]


def test_code_that_is_no_excerpt_of_a_tested_file_runs_by_itself(tmp_path: Path) -> None:
    assert len(BLOCKS) > len(BY_THEMSELVES) > 0
    for number, block in enumerate(BY_THEMSELVES):
        (tmp_path / f"block_{number}.py").write_text(block, "utf-8")
    program = "import glob, runpy\nfor file in sorted(glob.glob('block_*.py')): runpy.run_path(file)"

    # In a process of its own: what is registered stays registered.
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.stem))
def test_every_recipe_is_shown_and_linked_and_has_its_tests(recipe: Path) -> None:
    assert f"](../handlers/recipes/{recipe.name})" in GUIDE
    assert any(block in recipe.read_text("utf-8") for block in BLOCKS)
    assert (ROOT / "tests" / "handlers" / "recipes" / f"test_{recipe.name}").exists()


OPTIONS = [
    parameter
    for parameter in inspect.signature(Registry().on).parameters.values()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.name))
def test_every_option_of_on_is_in_the_table_with_its_default(option: inspect.Parameter) -> None:
    assert f"| `{option.name}` | `{option.default!r}` | " in GUIDE


PUBLIC = sorted(
    {field.name for field in fields(Context) if not field.name.startswith("_")}
    | {name for name in vars(Context) if not name.startswith("_")}
)


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_that_a_context_has_is_told_of(name: str) -> None:
    assert re.search(rf"`ctx\.{name}[`(]", GUIDE)


def test_every_command_that_is_named_is_one() -> None:
    from receiver.cli import app

    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]

    assert set(re.findall(r"billhook ([a-z-]+)", GUIDE)) - known == set()


def test_the_first_command_answers_what_the_guide_says(tmp_path: Path) -> None:
    block = re.search(r"^```console\n\$ billhook (.*?)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert block is not None

    done = subprocess.run(
        [sys.executable, "-P", "-m", "receiver.cli", *block[1].split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, block[2], "")


def test_every_link_to_a_heading_leads_to_one() -> None:
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-") for line in _headings()}

    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) - headings == set()


def _headings() -> list[str]:
    return re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
