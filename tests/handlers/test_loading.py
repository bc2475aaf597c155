from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import handlers as public
from handlers import Event
from handlers.errors import RegistrationError
from handlers.loading import load, load_all
from handlers.registry import REGISTRY
from tests.handlers.loaded import GOOD, nothing_loaded, written

MISSPELT = GOOD.replace("invoice.paid", "invoice.payed")


@pytest.fixture(autouse=True)
def _nothing_loaded() -> Iterator[None]:
    with nothing_loaded():
        yield


def handlers() -> list[str]:
    """The handlers that were registered."""
    return [handler.name for handler in REGISTRY]


def complaint(*names: str) -> str:
    """What is said when these do not load."""
    with pytest.raises(RegistrationError) as failed:
        load(names)
    assert "\n" not in str(failed.value)
    return str(failed.value)


# By name, file and glob


def test_a_module_is_loaded_by_name_from_the_folder_one_stands_in(tmp_path: Path) -> None:
    written(tmp_path / "shop_one.py")
    sys.path[:] = [entry for entry in sys.path if entry not in ("", str(tmp_path))]

    (module,) = load(["shop_one"])

    assert module.__name__ == "shop_one"
    assert handlers() == ["shop_one.receipt"]


def test_a_module_in_a_package_is_loaded_by_its_dotted_name(tmp_path: Path) -> None:
    written(tmp_path / "shop_two" / "__init__.py", "")
    written(tmp_path / "shop_two" / "billing.py")

    load(["shop_two.billing"])

    assert handlers() == ["shop_two.billing.receipt"]


def test_a_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    file = written(tmp_path / "elsewhere" / "shop_three.py")

    load([str(file)])

    assert handlers() == ["shop_three.receipt"]


def test_a_glob_loads_every_module_in_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b_shop", "a_shop", "__init__"):
        written(tmp_path / "plugins" / f"{name}.py")
    written(tmp_path / "plugins" / "notes.txt", "not Python")
    written(tmp_path / "plugins" / "deep" / "c_shop.py")

    modules = load(["plugins/*", str(tmp_path / "plugins" / "**" / "c_*.py")])

    assert [module.__name__ for module in modules] == ["a_shop", "b_shop", "c_shop"]
    assert handlers() == ["a_shop.receipt", "b_shop.receipt", "c_shop.receipt"]


def test_a_handler_that_is_loaded_is_found_by_the_public_registry(tmp_path: Path) -> None:
    written(tmp_path / "shop_four.py")
    load(["shop_four"])

    assert public.on == REGISTRY.on
    assert [handler.name for handler in REGISTRY if handler.hears("invoice.paid")] == ["shop_four.receipt"]


def test_nothing_to_load_is_nothing() -> None:
    assert load([]) == []


# Twice


@pytest.mark.parametrize(
    "names",
    [
        ["shop.py", "shop.py"],
        ["s*.py", "*.py"],
        ["shop.py", "./shop.py", "../{here}/shop.py"],
        ["shop", "shop.py"],
        ["shop.py", "shop"],
        ["shop.py", "linked.py"],
    ],
    ids=" ".join,
)
def test_a_module_that_is_named_twice_is_loaded_once(tmp_path: Path, names: list[str]) -> None:
    written(tmp_path / "shop.py")
    (tmp_path / "linked.py").symlink_to(tmp_path / "shop.py")
    if "*.py" in names:
        (tmp_path / "linked.py").unlink()

    modules = load([name.format(here=tmp_path.name) for name in names])

    assert [module.__name__ for module in modules] == ["shop"]
    assert handlers() == ["shop.receipt"]


@pytest.mark.parametrize("names", [["shop.billing", "shop/billing.py"], ["shop/billing.py", "shop.billing"]])
def test_a_file_of_a_package_is_one_module_by_either_name(tmp_path: Path, names: list[str]) -> None:
    written(tmp_path / "shop" / "__init__.py", "")
    written(tmp_path / "shop" / "billing.py")

    modules = load(names)

    assert len(modules) == 1
    assert len(handlers()) == 1


def test_a_module_that_another_one_imports_may_be_named_too(tmp_path: Path) -> None:
    written(tmp_path / "first.py", "import second\n" + GOOD)
    written(tmp_path / "second.py")

    modules = load(["*.py"])

    assert [module.__name__ for module in modules] == ["first", "second"]
    assert handlers() == ["second.receipt", "first.receipt"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    files = [written(tmp_path / folder / "shop_five.py") for folder in ("one", "two")]

    assert complaint(*map(str, files)) == (
        "two/shop_five.py: there is another module named shop_five, one/shop_five.py: give the file another name"
    )


# What cannot be found, or is in the way


@pytest.mark.parametrize("name", ["nowhere/*.py", "missing.py", "./missing.py"])
def test_a_path_that_matches_no_file_is_named(name: str) -> None:
    assert complaint(name) == f"no file matches {name}"


def test_a_folder_a_package_and_what_is_not_python_are_told_from_modules(tmp_path: Path) -> None:
    written(tmp_path / "plugins" / "__init__.py", "")
    written(tmp_path / "plugins" / "notes.txt", "not Python")

    assert complaint("plugins/") == "plugins/ is a folder: write plugins/*.py"
    assert complaint("plugins/__init__.py") == ("plugins/__init__.py is a package: name it with dots, as in plugins")
    assert complaint("plugins/notes.txt") == "plugins/notes.txt is no Python file: its name must end in .py"
    assert complaint("plugins/*") == "no file matches plugins/*"


@pytest.mark.parametrize("name", ["shop:receipt", "my-handlers", "", ".shop", "shop receipts"])
def test_what_is_no_name_of_a_module_is_told(name: str) -> None:
    assert complaint(name) == f"{name!r} names no module: write a dotted name such as shop.handlers, or a file.py"


@pytest.mark.parametrize("name", ["shop_missing", "shop_missing.billing", "shop.billing", "json.billing"])
def test_a_module_that_is_not_there_is_named_with_where_it_was_looked_for(tmp_path: Path, name: str) -> None:
    written(tmp_path / "shop.py")

    assert complaint(name) == f"there is no module {name} in {tmp_path} or among the installed packages"


def test_a_folder_of_ones_own_named_handlers_is_told_from_ours(tmp_path: Path) -> None:
    written(tmp_path / "handlers" / "receipts.py")

    assert complaint("handlers.receipts") == (
        f"there is no module handlers.receipts in {tmp_path} or among the installed packages; "
        "`handlers` is Billhook's own package: give your folder another name, or name the file"
    )
    load(["handlers/receipts.py"])
    assert handlers() == ["receipts.receipt"]


@pytest.mark.parametrize("name", ["handlers", "handlers.py", "plugins/handlers.py"])
def test_a_module_named_handlers_gets_an_error_that_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    if name.endswith(".py"):
        written(tmp_path / name)

    whose = f"{name}: " if name.endswith(".py") else ""
    assert complaint(name) == f"{whose}`handlers` is Billhook's own package: give your module another name"
    assert sys.modules["handlers"] is public


@pytest.mark.parametrize("name", ["json", "sys", "antigravity"])
def test_a_file_does_not_take_the_place_of_a_module_of_python(tmp_path: Path, name: str) -> None:
    # Whoever imports that module later would get the handlers instead; whether anybody has by now or not.
    written(tmp_path / "plugins" / f"{name}.py")

    assert complaint(f"plugins/{name}.py") == (
        f"plugins/{name}.py: there is another module named {name}, which comes with Python: give the file another name"
    )
    assert sys.modules["json"] is json


def test_a_file_does_not_take_the_place_of_an_installed_package(tmp_path: Path) -> None:
    written(tmp_path / "installed" / "acme_printing" / "__init__.py", "")
    written(tmp_path / "plugins" / "acme_printing.py")
    sys.path.append(str(tmp_path / "installed"))

    assert complaint("plugins/acme_printing.py") == (
        "plugins/acme_printing.py: there is another module named acme_printing, "
        "installed/acme_printing/__init__.py: give the file another name"
    )


def test_a_file_may_be_named_like_a_folder_that_is_no_package(tmp_path: Path) -> None:
    written(tmp_path / "receipts" / "receipts.py")

    load(["receipts/receipts.py"])

    assert handlers() == ["receipts.receipt"]


# What fails


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "import no_such",
            "does not load: ModuleNotFoundError: No module named 'no_such'; is it installed where Billhook runs?",
        ),
        ("1 / 0", "does not load: ZeroDivisionError: division by zero"),
        ("int('x')", "does not load: ValueError: invalid literal for int() with base 10: 'x'"),
        ("json.loads('')", "does not load: json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        ("def f(:", "does not load: SyntaxError: invalid syntax"),
        ("exec('def f(:')", "does not load: SyntaxError: invalid syntax"),
        ("raise RuntimeError('one\\ntwo')", "does not load: RuntimeError: one two"),
        ("raise RuntimeError", "does not load: RuntimeError"),
        ("import sys; sys.exit(3)", "does not load: SystemExit: 3"),
        ("import pytest; pytest.skip('no CRM here', allow_module_level=True)", "does not load: Skipped: no CRM here"),
        ("on('invoice.paid', retrys=3)", "@on has no option retrys: did you mean retries?"),
        ("on('invoice.paid')(None)", "@on decorates None: does the decorator below it return the function?"),
    ],
    ids=lambda value: value.partition("(")[0][:24],
)
@pytest.mark.parametrize("by", ["name", "file"])
def test_a_module_that_does_not_load_is_one_line_with_file_and_line(
    tmp_path: Path, line: str, error: str, by: str
) -> None:
    written(tmp_path / "shop_broken.py", f"import json\nfrom handlers import on\n\n{line}\n")

    assert complaint("shop_broken.py" if by == "file" else "shop_broken") == f"shop_broken.py:4: {error}"
    assert "shop_broken" not in sys.modules


def test_the_line_is_the_innermost_of_the_users_own(tmp_path: Path) -> None:
    written(tmp_path / "shop.py", "import tariffs\n")
    written(tmp_path / "tariffs.py", "import json\n\ndef read(text):\n    return json.loads(text)\n\nread('{')\n")

    assert complaint("shop").startswith("tariffs.py:4: does not load: json.decoder.JSONDecodeError: ")


def test_a_file_that_is_a_part_of_a_package_is_told_to_be_named_with_dots(tmp_path: Path) -> None:
    written(tmp_path / "shop" / "billing.py", "from . import tariffs\n")

    assert complaint("shop/billing.py") == (
        "shop/billing.py:1: does not load: ImportError: attempted relative import with no known parent package; "
        "a file by itself is in no package: name it with dots, as in shop.handlers"
    )


def test_a_package_that_misses_something_is_not_said_to_be_missing(tmp_path: Path) -> None:
    written(tmp_path / "shop" / "__init__.py", "import no_such_module\n")
    written(tmp_path / "shop" / "billing.py")

    assert complaint("shop.billing").startswith("shop/__init__.py:1: does not load: ModuleNotFoundError")


def test_what_is_no_text_is_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "zeros.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "bytes.py").write_bytes(b"x = '\xff'\n")

    assert "zeros.py" in complaint("zeros.py")
    assert "bytes.py" in complaint("bytes.py")


def test_an_interrupt_is_not_swallowed(tmp_path: Path) -> None:
    written(tmp_path / "shop.py", "raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        load(["shop.py"])


def test_every_error_is_gathered_once_and_the_good_modules_are_loaded(tmp_path: Path) -> None:
    written(tmp_path / "a_bad.py", GOOD + "1 / 0\n")
    written(tmp_path / "b_uses_bad.py", GOOD + "import c_wrong\n")
    written(tmp_path / "c_wrong.py", GOOD + "\non('Invoice')\n")
    written(tmp_path / "d_misspelt.py", MISSPELT)
    written(tmp_path / "e_good.py")

    loaded = load_all(["*.py", "nowhere"])

    assert [str(error).partition(": ")[0] for error in loaded.errors] == [
        "a_bad.py:7",
        "c_wrong.py:8",
        f"there is no module nowhere in {tmp_path} or among the installed packages",
        "d_misspelt.py:4",
    ]
    assert [module.__name__ for module in loaded.modules] == ["d_misspelt", "e_good"]
    assert handlers() == ["d_misspelt.receipt", "e_good.receipt"]


def test_a_module_that_could_be_loaded_keeps_its_handlers_when_its_importer_fails(tmp_path: Path) -> None:
    written(tmp_path / "first.py", "import second\n" + GOOD + "1 / 0\n")
    written(tmp_path / "second.py")

    loaded = load_all(["first.py", "second.py"])

    assert len(loaded.errors) == 1
    assert handlers() == ["second.receipt"]


# What is checked in the end


def test_a_misspelt_event_is_an_error_at_the_line_of_its_decorator(tmp_path: Path) -> None:
    written(tmp_path / "shop.py", MISSPELT)

    assert complaint("shop.py").startswith("shop.py:4: no provider documents an event invoice.payed: did you mean ")


def test_on_without_a_function_is_an_error(tmp_path: Path) -> None:
    written(tmp_path / "shop.py", GOOD.replace("@on", "on"))

    assert (
        complaint("shop.py") == "shop.py:4: on(…) decorates nothing here: write it as @on(…), right above its function"
    )


def test_a_decorator_that_is_kept_for_later_is_none(tmp_path: Path) -> None:
    written(tmp_path / "shop.py", GOOD.replace("@on(", "paid = on(", 1).replace("def", "@paid\ndef"))

    load(["shop.py"])

    assert handlers() == ["shop.receipt"]


def test_sources_are_looked_up_where_they_are_known(tmp_path: Path) -> None:
    written(tmp_path / "shop.py", GOOD.replace('paid"', 'paid", source="shpo"'))

    load(["shop.py"])
    (error,) = load_all(["shop.py"], sources={"shop": "hisab"}).errors

    assert str(error) == "shop.py:4: there is no source 'shpo': did you mean 'shop'? configured: shop"


# Entry points


def installed(folder: Path, package: str, *entries: str) -> None:
    """A package as an installer leaves it, with these entry points."""
    info = folder / f"{package}-1.0.dist-info"
    written(info / "METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    written(info / "entry_points.txt", "[billhook.handlers]\n" + "\n".join(entries) + "\n")
    sys.path.append(str(folder))


def test_what_installed_packages_name_is_loaded_too(tmp_path: Path) -> None:
    written(tmp_path / "site" / "acme_billing" / "__init__.py", "")
    written(tmp_path / "site" / "acme_billing" / "hooks.py")
    installed(tmp_path / "site", "acme-billing", "acme = acme_billing.hooks")
    written(tmp_path / "shop.py")

    modules = load(["shop.py"])

    assert [module.__name__ for module in modules] == ["shop", "acme_billing.hooks"]
    assert handlers() == ["shop.receipt", "acme_billing.hooks.receipt"]


def test_what_installed_packages_name_can_be_left_out(tmp_path: Path) -> None:
    written(tmp_path / "site" / "acme_hooks.py")
    installed(tmp_path / "site", "acme-billing", "acme = acme_hooks")

    assert load_all([], installed=False).modules == ()


def test_a_module_that_an_installed_package_and_a_setting_name_is_loaded_once(tmp_path: Path) -> None:
    written(tmp_path / "site" / "acme_hooks.py")
    installed(tmp_path / "site", "acme-billing", "acme = acme_hooks", "again = acme_hooks:receipt")

    assert len(load(["acme_hooks"])) == 1
    assert handlers() == ["acme_hooks.receipt"]


def test_an_entry_point_that_leads_nowhere_is_told_with_its_package(tmp_path: Path) -> None:
    installed(tmp_path / "site", "acme-billing", "acme = acme_gone.hooks")

    assert complaint() == (
        f"there is no module acme_gone.hooks in {tmp_path} or among the installed packages; "
        "the entry point acme of acme-billing names it"
    )


# What it costs


def test_importing_on_does_not_import_the_providers() -> None:
    # A unit test of a handler imports this; the table of providers takes longer than all the rest of it.
    program = (
        "import sys, handlers; "
        "heavy = {'handlers.providers', 'handlers.loading', 'pydantic', 'difflib'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or None)"
    )

    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, env=os.environ)

    assert (done.returncode, done.stderr) == (0, "")


def test_an_event_that_no_provider_documents_is_taken_as_it_is(tmp_path: Path) -> None:
    written(tmp_path / "shop.py", GOOD.replace("invoice.paid", "warehouse.emptied"))

    load(["shop.py"])

    assert [handler.patterns for handler in REGISTRY] == [("warehouse.emptied",)]
    assert REGISTRY.wanting(Event(type="warehouse.emptied", data={}, occurred_at=None))  # type: ignore[arg-type]
