"""The table in the chart's README, from the comments of values.yaml; `python -m tests.chart.readme` writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.chart.schema import CHART

README = CHART / "README.md"
VALUES = CHART / "values.yaml"
TABLE = re.compile(r"(<!-- values: [^>]*-->\n)(.*?)(<!-- /values -->)", re.DOTALL)
_LONGEST = 120
"""Characters of a default beyond which the file has to be looked at."""


class Undescribed(Exception):
    """A value has no comment above it."""


def table(values: Path = VALUES) -> str:
    """Every value with its default and comment, as Markdown; a section for each of the topmost."""
    text = values.read_text("utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    lines = ["| value | default | what it is |", "|---|---|---|"]
    sections = []
    for key, value in root.value:
        if _is_section(key, value, text):
            about = _comment(key, text)
            sections += [f"### {key.value}\n", *([about + "\n"] if about else []), *_rows(key.value, value, text), ""]
        else:
            lines.append(_row(key.value, key, value, text))
    return "\n".join([*lines, "", *sections]).rstrip("\n") + "\n"


def _is_section(key: yaml.Node, value: yaml.Node, text: str) -> bool:
    """A block of values. One below the top that has a comment is one value, whatever is in it."""
    return (
        isinstance(value, yaml.MappingNode)
        and not value.flow_style
        and not (key.start_mark.column and _comment(key, text))
    )


def _rows(path: str, section: yaml.MappingNode, text: str) -> Iterator[str]:
    yield from ("| value | default | what it is |", "|---|---|---|")
    yield from _below(path, section, text)


def _below(path: str, section: yaml.MappingNode, text: str) -> Iterator[str]:
    for key, value in section.value:
        name = f"{path}.{key.value}"
        if _is_section(key, value, text):
            yield from _below(name, value, text)
        else:
            yield _row(name, key, value, text)


def _row(name: str, key: yaml.Node, value: yaml.Node, text: str) -> str:
    about = _comment(key, text)
    if not about:
        raise Undescribed(f"values.yaml:{key.start_mark.line + 1}: {name} has no comment above it")
    default = json.dumps(yaml.SafeLoader("").construct_document(value), ensure_ascii=False)
    if len(default) > _LONGEST:
        return f"| `{name}` | see values.yaml | {about} |"
    return f"| `{name}` | `{default}` | {about} |"


def _comment(key: yaml.Node, text: str) -> str:
    """The comment lines that stand right above a key, as one line."""
    lines = text.splitlines()
    indent = " " * key.start_mark.column
    first = number = key.start_mark.line
    while first and lines[first - 1].startswith(f"{indent}# "):
        first -= 1
    return " ".join(line.strip().removeprefix("# ") for line in lines[first:number]).replace("|", "\\|")


if __name__ == "__main__":
    README.write_text(TABLE.sub(lambda found: found[1] + table() + found[3], README.read_text("utf-8")), "utf-8")
