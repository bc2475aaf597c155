"""The command that writes a new handler with its test, and what it has in common with `billhook init`."""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from receiver.cli.output import CommandError, WrongUse

_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_TAKEN = ("billhook", "handlers", "receiver", "workers", "conftest")

_HANDLER = '''"""What is done about {event}."""

from __future__ import annotations

from handlers import Context, Event, on


@on("{event}")
def {function}(event: Event, ctx: Context) -> None:
    """Runs once for each event, and again when it raises. What it emits is sent on if, and only if, it returns."""
    ctx.logger.info("handling an event", object=event.object_id)
    ctx.emit("{name}.done", {{"object": event.object_id}})
'''
_TEST = """from __future__ import annotations

from {name} import {function}

from handlers.testing import event, run


def test_it_emits_when_it_succeeds() -> None:
    ran = run({function}, event({made_of}))

    assert ran.outcome == "succeeded", ran.trace
    assert ran.emitted == [("{name}.done", {{"object": {object_id}}})]


def test_a_start_that_is_repeated_sends_nothing_twice() -> None:
    first = run({function}, event({made_of}))
    again = run({function}, event({made_of}), store=first.store)

    assert (again.emitted, again.keys) == (first.emitted, first.keys)
"""


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    new = typer.Typer(help="Write a file to begin with.", no_args_is_help=True)
    new.callback()(lambda: None)  # else its only command would stand for all of it
    new.command("handler")(new_handler)
    app.add_typer(new, name="new")


def new_handler(
    name: Annotated[str, typer.Argument(help="Of the module: lower-case letters, digits and _.")],
    event_type: Annotated[str, typer.Option("--event", help="What it listens to.")] = "invoice.paid",
    folder: Annotated[Path, typer.Option(help="Where the files are put.")] = Path(),
) -> None:
    """Write a handler and its test, which passes.

    They are NAME.py and test_NAME.py.

    Example: billhook new handler receipts --event invoice.paid
    """
    _check_name(name)
    module, test = folder / f"{name}.py", folder / f"test_{name}.py"
    refuse_to_overwrite((module, test), "choose another name")
    write(folder, handler_files(name, event_type))
    print(f"wrote {module} and {test}; next:")
    for command in (f"pytest {test}", f"billhook run-handler {module}"):
        print(f"  {command}")
    print(f"  BILLHOOK_HANDLERS={module} billhook work --reload")


def handler_files(name: str, event_type: str, provider: str | None = None) -> dict[str, str]:
    """A module with a handler, and its test; by their names. Raises WrongUse for an event type that is none."""
    words = _words(name, event_type, provider)
    return {f"{name}.py": _HANDLER.format(**words), f"test_{name}.py": _TEST.format(**words)}


def refuse_to_overwrite(files: Iterable[Path], instead: str) -> None:
    """Raise CommandError where one of the files is there."""
    for file in files:
        if file.exists() or file.is_symlink():
            raise CommandError(f"{file} is there already, and is left as it is; {instead}")


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write new files, all or none; the folder is made if need be. Raises CommandError."""
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with (folder / name).open("x", encoding="utf-8") as written:
                made.append(folder / name)
                written.write(text)
    except OSError as error:
        for file in made:
            file.unlink(missing_ok=True)
        raise CommandError(f"cannot write {error.filename or folder}: {error.strerror}") from None


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None or keyword.iskeyword(name):
        raise WrongUse(f"{name!r} cannot be a module's name: write lower-case letters, digits and _, as in receipts")
    if name in _TAKEN:
        raise WrongUse(f"{name!r} is a name that is taken: choose another, as in my_{name}")
    if name.startswith("test_") or name.endswith("_test"):
        raise WrongUse(f"pytest would take {name}.py for a test: choose another name; its test is test_NAME.py anyway")
    found = importlib.util.find_spec(name)
    if name in sys.stdlib_module_names or (found is not None and found.origin is not None):
        whose = "which comes with Python" if name in sys.stdlib_module_names else f"{found and found.origin}"
        raise WrongUse(f"there is a module named {name} already, {whose}: choose another name, as in my_{name}")


def _words(name: str, event_type: str, whose: str | None) -> dict[str, Any]:
    """What the templates have gaps for."""
    from handlers.providers import PROVIDERS
    from handlers.registry import matches, valid_pattern
    from handlers.testing import event
    from handlers.testing.events import samples
    from handlers.vocabulary import INTERNAL, everything, misspelt

    if not valid_pattern(event_type):
        raise WrongUse(f"--event: {event_type!r} is none; write invoice.paid, invoice.* or *")
    if (near := misspelt(event_type, everything())) is not None:
        raise WrongUse(f"--event: no provider documents an event {event_type}: did you mean {near}?")
    known = (
        (one, sample)
        for one in ((*PROVIDERS, INTERNAL) if whose is None else (whose,))
        for sample in samples(one)
        if matches(event_type, sample)
    )
    provider, sample = next(known, ("standard", event_type.replace("*", "made")))
    given: dict[str, Any] = {"provider": provider} if provider != "hisab" else {}
    if sample not in samples(provider):
        given["data"] = {"id": "1"}
    made_of = ", ".join([f'"{sample}"', *(f"{key}={json.dumps(value)}" for key, value in given.items())])
    return {
        "name": name,
        "event": event_type,
        "function": "handle_" + (event_type.removesuffix("*").strip(".").replace(".", "_") or "event"),
        "made_of": made_of,
        "object_id": json.dumps(event(sample, **given).object_id),
    }
