"""The settings that the pages of docs/providers show: what a reader pastes must load."""

from __future__ import annotations

import os
import re
import textwrap
import tomllib
from pathlib import Path

import pytest

from handlers.providers import PROVIDERS
from workers import settings

PAGES = Path(__file__).parents[1] / "docs" / "providers"
BLOCK = re.compile(r"^([ ]*)```toml\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
FILLED = {
    "…the word…": "w" * 43,
    "whsec_…": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whpk_…": "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "…": "x" * 24,
}
"""What a reader puts in the place of an ellipsis, the longest first."""


def blocks() -> list[tuple[str, str]]:
    return [
        (page.name, textwrap.dedent(found[2]))
        for page in sorted(PAGES.glob("*.md"))
        for found in BLOCK.finditer(page.read_text("utf-8"))
    ]


def test_each_provider_has_an_example_of_its_settings() -> None:
    shown = {source["provider"] for _, block in blocks() for source in tomllib.loads(block)["sources"].values()}

    assert shown == set(PROVIDERS)


@pytest.mark.parametrize(("page", "block"), blocks())
def test_the_settings_of_a_providers_page_load(
    page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(name)
    for gap, text in FILLED.items():
        block = block.replace(gap, text)
    (tmp_path / "billhook.toml").write_text(block, "utf-8")
    monkeypatch.setenv(settings.CONFIG, str(tmp_path / "billhook.toml"))

    loaded = settings.load()

    assert loaded.sources.keys() == tomllib.loads(block)["sources"].keys(), page
    assert all(source.inbound() for source in loaded.sources.values())
