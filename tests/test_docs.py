"""The documents say what the code does. `python -m tests.test_docs` writes the README's table of settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import typer
from prometheus_client.metrics import MetricWrapperBase

from tests.alerts.rules import of_the_beat
from workers import metrics
from workers.settings import Settings, Source, shown

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
_TABLE = re.compile(r"(<!-- settings: [^>]*-->\n)(.*?)(<!-- /settings -->)", re.DOTALL)


def settings_table() -> str:
    """The options, then those of one source, as Markdown."""
    lines = ["| option | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = shown(field.get_default(call_default_factory=True))
        lines.append(f"| `BILLHOOK_{name.upper()}` | {f'`{default}`' if default else ''} | {field.description} |")
    lines += [
        "",
        "Each source has these; `shop` stands for its name.",
        "",
        "| option | default | what it is |",
        "|---|---|---|",
    ]
    for name, field in Source.model_fields.items():
        default = "" if field.is_required() else shown(field.get_default(call_default_factory=True))
        lines.append(
            f"| `BILLHOOK_SOURCES__SHOP__{name.upper()}` | {f'`{default}`' if default else ''} | {field.description} |"
        )
    return "\n".join(lines) + "\n"


def test_the_readme_lists_every_option_with_its_default_and_help() -> None:
    found = _TABLE.search(README.read_text())

    assert found is not None
    assert found[2] == settings_table(), "run: python -m tests.test_docs"


def test_the_readmes_handler_is_registered_as_it_stands(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "receipts.py").write_text(code[1])

    # In a process of its own: what is registered stays registered.
    load = "from handlers import loading, registry; loading.load(['receipts.py']); print(*registry.REGISTRY._handlers)"
    loaded = subprocess.run(
        [sys.executable, "-c", load], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )

    assert loaded.stdout == "receipts.send_receipt\n"


def test_every_command_is_told_of_in_the_documents() -> None:
    from receiver.cli import app

    text = README.read_text() + (ROOT / "docs" / "architecture.md").read_text()
    command = typer.main.get_command(app)

    assert [name for name in command.commands if f"billhook {name}" not in text] == []  # type: ignore[attr-defined]


def test_the_table_of_metrics_has_each_with_its_type_its_labels_and_who_serves_it() -> None:
    row = re.compile(r"^\| `(billhook_\w+)` \| (serve|work|beat|all) \| (\w+) \|([^|]*)\| \S[^|]+ \|$", re.MULTILINE)
    rows = row.findall((ROOT / "docs" / "metrics.md").read_text())
    counted = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]

    assert len(counted) > 15
    assert {name: (kind, labels.strip()) for name, process, kind, labels in rows if process != "beat"} == {
        metric._name + "_total" * (metric._type == "counter"): (metric._type, ", ".join(metric._labelnames))
        for metric in counted
    }
    assert {name: (kind, labels.strip()) for name, process, kind, labels in rows if process == "beat"} == {
        name: ("gauge", ", ".join(labels)) for name, labels in of_the_beat().items()
    }


def test_every_link_to_a_file_of_ours_leads_somewhere() -> None:
    for document in (README, *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


if __name__ == "__main__":
    README.write_text(_TABLE.sub(lambda found: found[1] + settings_table() + found[3], README.read_text()))
