"""The settings, the sources among them, and the handlers that they name."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterator

from handlers.registry import REGISTRY
from receiver.cli.doctor.finding import LIMIT, Finding, Site, late
from receiver.cli.handlers import doubts, load
from receiver.cli.output import many
from workers.execution import time_limit
from workers.settings import Source, options, toml_path, unknown_variables

SHORTEST = 16
"""Characters of a secret below which it can be tried out, or nearly."""
LEAST_BITS = 64.0
_PLACEHOLDER = re.compile(
    r"secret|change.?me|example|placeholder|password|trial|dummy|your[-_ ]|x{5}|\*\*\*|\s|1234567", re.IGNORECASE
)
_WORDS = re.compile(r"^(whsec_|whpk_|sk_|test_|live_)+")
"""What providers put before the part of a secret that is one."""


def of_settings(site: Site) -> Iterator[Finding]:
    """Where they come from, and variables that mean nothing."""
    origins = Counter(option.origin != "default" for option in options(site.settings))
    file = toml_path()
    where = f", with {file}" if file else ""
    yield Finding("settings", "ok", f"{many(origins[True], 'option')} set{where}, {origins[False]} by default")
    for variable in unknown_variables():
        yield Finding(
            "settings", "warning", f"{variable} is no option, and has no effect", "correct its name or unset it"
        )


def of_sources(site: Site) -> Iterator[Finding]:
    """Whether their secrets can be guessed. None of them is shown."""
    sources = site.settings.sources
    if not sources:
        yield Finding("sources", "warning", "none is configured, so no event comes", "set BILLHOOK_SOURCES")
    used = Counter(secret.get_secret_value() for source in sources.values() for secret in set(source.secrets))
    for name, source in sources.items():
        weak = [doubt for secret in source.secrets if (doubt := _weakness(secret.get_secret_value()))]
        weak += ["another source has it too" for secret in source.secrets if used[secret.get_secret_value()] > 1]
        if weak:
            todo = "who can guess it can forge events: have the provider give you another, and put it first"
            yield Finding("sources", "warning", f"{name} ({source.provider}): a secret is weak: {weak[0]}", todo)
        else:
            yield Finding("sources", "ok", f"{name} ({source.provider}): {_has(source)}")


def _has(source: Source) -> str:
    key = "an API key" if source.api_key is not None else "no API key"
    return f"{many(len(source.secrets), 'secret')}, {key}"


def _weakness(secret: str) -> str:
    """Why a secret can be guessed; nothing where it looks as if it came of a generator. Public keys are no secrets."""
    if secret.startswith("whpk_"):
        return ""
    bare = _WORDS.sub("", secret)
    if len(bare) < SHORTEST:
        return f"shorter than {SHORTEST} characters"
    if _PLACEHOLDER.search(bare):
        return "it looks like a placeholder"
    counts = Counter(bare).values()
    bits = sum(-count * math.log2(count / len(bare)) for count in counts)
    return "" if bits >= LEAST_BITS else "its characters repeat"


def of_handlers(site: Site) -> Iterator[Finding]:
    """As `billhook check` does it, and in the main thread, as a worker loads them."""
    names = site.settings.handlers
    began = time.monotonic()
    with time_limit(LIMIT):
        loaded = load(site.settings, names)
    if time.monotonic() - began > LIMIT:
        yield late("handlers")
        return
    for error in loaded.errors:
        yield Finding(
            "handlers", "fault", str(error), "no worker starts with it: mend it; `billhook check` looks again"
        )
    if loaded.errors:
        return
    for place, doubt in doubts(site.settings, names):
        yield Finding("handlers", "warning", f"{place}{doubt}")
    if count := len(list(REGISTRY)):
        yield Finding("handlers", "ok", f"{many(count, 'handler')} in {many(len(loaded.modules), 'module')}")
