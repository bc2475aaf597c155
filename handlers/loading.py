"""Loading the modules of a user that call `@on`: by dotted name, file, glob, and by entry points of installed packages.

Every error is one line that begins with the file and line it is about, where there is one.
"""

from __future__ import annotations

import glob
import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from handlers import vocabulary
from handlers.errors import RegistrationError
from handlers.registry import REGISTRY, short

GROUP = "billhook.handlers"
"""The group of entry points; the value of each is a module, loaded wherever its package is installed."""
_OURS = ("handlers", "receiver", "workers")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of loading: each module once, and one error a line."""

    modules: tuple[ModuleType, ...]
    errors: tuple[RegistrationError, ...]


def load(names: Iterable[str], *, sources: Mapping[str, str] | None = None) -> list[ModuleType]:
    """As `load_all`, but raises the first RegistrationError."""
    loaded = load_all(names, sources=sources)
    if loaded.errors:
        raise loaded.errors[0]
    return list(loaded.modules)


def load_all(names: Iterable[str], *, sources: Mapping[str, str] | None = None, installed: bool = True) -> Loaded:
    """Import modules by dotted name, file or glob, and with `installed` those that installed packages name.

    A module that is named twice is loaded once. `sources` has the provider of each configured source; where it is None,
    the sources that handlers name are not looked up. All that is registered in the end is checked together.
    """
    modules: list[ModuleType] = []
    errors: list[str] = []
    for result in _each(names, installed):
        if isinstance(result, RegistrationError):
            errors.append(str(result))
        elif result not in modules:
            modules.append(result)
    errors += _checked(sources)
    return Loaded(tuple(modules), tuple(RegistrationError(error) for error in dict.fromkeys(errors)))


def _checked(sources: Mapping[str, str] | None) -> Iterator[str]:
    """What can be told only once everything is loaded."""
    for place in REGISTRY.unused:
        yield f"{place}: on(…) decorates nothing here: write it as @on(…), right above its function"
    for handler in REGISTRY:
        where = handler.place or f"handler {handler.name}"
        for complaint in vocabulary.complaints(handler):
            yield f"{where}: {complaint}"
        for complaint in vocabulary.of_sources(handler, sources) if sources is not None else ():
            yield f"{where}: {complaint}"


def _each(names: Iterable[str], installed: bool) -> Iterator[ModuleType | RegistrationError]:
    # A console script does not look in the folder it is started in; users' modules stand there.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    importlib.invalidate_caches()  # a file may be newer than the last look at its folder
    for name in names:
        if not (name.endswith(".py") or "/" in name):
            yield _attempt(name, None)
            continue
        try:
            files = _files(name)
        except RegistrationError as error:
            yield error
            continue
        for file in files:
            yield _attempt(Path(file).stem, file)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name) if installed else ():
        yield _attempt(entry.value.partition(":")[0].partition("[")[0].strip(), None, entry)


def _files(pattern: str) -> list[str]:
    """The files that a path or glob names. Raises RegistrationError where that is none."""
    if Path(pattern).is_dir():
        raise RegistrationError(f"{pattern} is a folder: write {Path(pattern) / '*.py'}")
    files = sorted(glob.glob(pattern, recursive=True))
    if pattern not in files:  # a glob means modules: not what else lies there, and not the packages they are in
        files = [file for file in files if file.endswith(".py") and Path(file).name != "__init__.py"]
    if not files:
        raise RegistrationError(f"no file matches {pattern}")
    if not files[0].endswith(".py"):
        raise RegistrationError(f"{pattern} is no Python file: its name must end in .py")
    if Path(files[0]).name == "__init__.py":
        raise RegistrationError(
            f"{pattern} is a package: name it with dots, as in {Path(pattern).absolute().parent.name}"
        )
    return files


def _attempt(name: str, file: str | None, entry: EntryPoint | None = None) -> ModuleType | RegistrationError:
    before = {handler.name for handler in REGISTRY}
    try:
        if name in _OURS:
            whose = f"{short(file)}: " if file else ""
            raise RegistrationError(f"{whose}`{name}` is Billhook's own package: give your module another name")
        return _import(name, entry) if file is None else _run(name, file)
    except RegistrationError as error:
        failed = error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and what a test file raises to be skipped
        failed = RegistrationError(_told(error, file or name))
    # What it imported on the way may stand; what it registered itself would be half of a module.
    new = [handler for handler in REGISTRY if handler.name not in before]
    REGISTRY.forget(one.name for one in new if one.place is None or one.place.module not in sys.modules)
    return failed


def _import(name: str, entry: EntryPoint | None) -> ModuleType:
    """A module by its dotted name, unless a path named it before."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise RegistrationError(f"{name!r} names no module: write a dotted name such as shop.handlers, or a file.py")
    if name in sys.modules:
        return sys.modules[name]
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name != name and not name.startswith(f"{error.name}."):  # something else that its package needs
            raise
        spec = None
    if spec is None:
        _not_found(name, entry)
    return _twin(spec.origin) or importlib.import_module(name)


def _not_found(name: str, entry: EntryPoint | None) -> NoReturn:
    hint = ""
    if name.startswith("handlers."):
        hint = "; `handlers` is Billhook's own package: give your folder another name, or name the file"
    if entry is not None:
        package = entry.dist.name if entry.dist else "a package"
        hint = f"; the entry point {entry.name} of {package} names it"
    raise RegistrationError(f"there is no module {name} in {Path.cwd()} or among the installed packages{hint}")


def _run(name: str, file: str) -> ModuleType:
    """A module by its file. Raises what its own code raises, too."""
    twin = _twin(file)
    if twin is not None:
        return twin
    _refuse_shadow(name, file)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _twin(file: str | None) -> ModuleType | None:
    """The module that was loaded from this file, under whatever name: its handlers are there already."""
    if file is None:
        return None
    real = os.path.realpath(file)
    base = os.path.basename(real)
    for name, module in list(sys.modules.items()):
        other = getattr(module, "__dict__", {}).get("__file__")  # not its attribute: some modules do much when asked
        if (
            name != "__main__"
            and isinstance(other, str)
            and os.path.basename(other) == base
            and os.path.realpath(other) == real
        ):
            return module
    return None


def _refuse_shadow(name: str, file: str) -> None:
    """Raise RegistrationError where `import` of the file's name means another module.

    Whoever imports that one later would get the handlers in its place.
    """
    if name in sys.modules:
        where = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or spec.origin is None:  # nothing, or a folder, which `import` finds only after a module
            return
        where = spec.origin
        if os.path.realpath(where) == os.path.realpath(file):
            return
    whose = "which comes with Python" if name in sys.stdlib_module_names else f"{short(where) if where else 'loaded'}"
    raise RegistrationError(f"{short(file)}: there is another module named {name}, {whose}: give the file another name")


def _told(error: BaseException, target: str) -> str:
    """The last line of the traceback, behind the place where it went wrong."""
    if isinstance(error, SyntaxError):
        told = f"{type(error).__name__}: {error.msg}"  # its own text repeats the place
    else:
        told = " ".join("".join(traceback.format_exception_only(error)).split())[:300]
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = "; is it installed where Billhook runs?"
    elif isinstance(error, ImportError) and "relative import" in told:
        hint = "; a file by itself is in no package: name it with dots, as in shop.handlers"
    return f"{_place(error) or short(target)}: does not load: {told}{hint}"


def _place(error: BaseException) -> str | None:
    """Where in the user's code it went wrong: the innermost line of theirs; None where no line of theirs ran."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return f"{short(error.filename)}:{error.lineno}"
    frames = [
        frame
        for frame in reversed(traceback.extract_tb(error.__traceback__))
        if frame.filename != __file__ and not frame.filename.startswith("<") and "/importlib/" not in frame.filename
    ]
    paths = sysconfig.get_paths()
    libraries = tuple({os.path.join(paths[name], "") for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    theirs = [frame for frame in frames if not frame.filename.startswith(libraries)] or frames
    return f"{short(theirs[0].filename)}:{theirs[0].lineno}" if theirs else None
