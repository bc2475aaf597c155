"""Whether the names in handlers are names of anything: providers, events that their documents list, sources.

A type that nobody documents is no error: providers add types, and any sender may have its own. One that differs from a
documented type by a slip of the hand is one, because its handler would wait for ever and nobody would be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher

from handlers.checks import nearest
from handlers.providers import PROVIDERS
from handlers.registry import Handler, matches

INTERNAL = "billhook"
"""What stands as the provider of Billhook's own events."""
OF_SCHEDULES = ("recurring.generated", "recurring.failed", "recurring.completed")
"""Those that have the source of their schedule."""
OPERATIONAL = (
    "billhook.endpoint.warned",
    "billhook.endpoint.disabled",
    "billhook.endpoint.recovered",
    "billhook.delivery.exhausted",
)
"""Those about Billhook itself, whose source is `INTERNAL` too."""
INTERNAL_EVENTS = (*OF_SCHEDULES, *OPERATIONAL)

_SLIPS = 2
"""Letters in which a misspelt type differs at most."""
_FAR = _SLIPS + 1


def documented(provider: str) -> tuple[str, ...]:
    """The event types that a provider's documents name; empty where any sender may have any, or it is unknown."""
    if provider == INTERNAL:
        return INTERNAL_EVENTS
    known = PROVIDERS.get(provider)
    # Who has an API has documents of its own; the others stand for every sender of some kind.
    return known.events if known is not None and known.client is not None else ()


def everything() -> list[str]:
    """The event types that anybody's documents name."""
    return [event for provider in (*PROVIDERS, INTERNAL) for event in documented(provider)]


def complaints(handler: Handler) -> Iterator[str]:
    """What is wrong with the names in a handler, as far as no settings are needed to tell."""
    providers = sorted({*PROVIDERS, INTERNAL})
    if handler.provider is not None and handler.provider not in providers:
        near = nearest(handler.provider, providers)
        hint = f"did you mean {near!r}? There are" if near else "there are"
        others = ", ".join(name for name in providers if name != INTERNAL)
        yield f"there is no provider {handler.provider!r}: {hint} {others}, and {INTERNAL} for its own events"
        return
    if handler.source is not None:
        return  # who names the sender knows what it sends
    for pattern in handler.patterns:
        if handler.provider is not None:
            near = misspelt(pattern, documented(handler.provider))
            if near is not None:
                yield (
                    f"{handler.provider} documents no event {pattern}: did you mean {near}? "
                    "If it does send that, name the source (source=) instead"
                )
        elif (near := misspelt(pattern, everything())) is not None:
            yield (
                f"no provider documents an event {pattern}: did you mean {near}? "
                "If a sender of yours does send that, name the sender: source= or provider="
            )


def of_sources(handler: Handler, sources: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the source that a handler names; `sources`: the provider of each configured one."""
    if handler.source is None:
        return
    if handler.source == INTERNAL:
        yield f'{INTERNAL} is no source that is configured: for Billhook\'s own events write provider="{INTERNAL}"'
        return
    provider = sources.get(handler.source)
    if provider is None:
        near = nearest(handler.source, sorted(sources))
        configured = ", ".join(sorted(sources))
        hint = f"did you mean {near!r}? " if near else ""
        hint += f"configured: {configured}" if configured else "none is configured, see BILLHOOK_SOURCES"
        yield f"there is no source {handler.source!r}: {hint}"
    elif handler.provider not in (None, provider, INTERNAL):
        yield (
            f"the source {handler.source!r} is of {provider}, so no event of it is of {handler.provider}: "
            "leave out provider= or source="
        )


def doubts(handler: Handler, sources: Mapping[str, str]) -> Iterator[str]:
    """What a handler may wait for in vain, given the provider of each configured source."""
    if handler.provider not in (None, INTERNAL) and handler.provider not in sources.values():
        yield f"no source of {handler.provider} is configured, so it is never called"
        return
    heard = {
        provider
        for source, provider in sources.items()
        if handler.source in (None, source) and handler.provider in (None, provider)
    }
    if any(not documented(provider) for provider in heard):
        return
    events = [event for provider in sorted(heard) for event in documented(provider)]
    if handler.provider in (None, INTERNAL):
        events += INTERNAL_EVENTS if handler.source is None else OF_SCHEDULES
    for pattern in handler.patterns:
        if not any(matches(pattern, event) for event in events):
            near = misspelt(pattern, events)
            hint = f": did you mean {near}?" if near else ""
            yield f"no configured source documents an event {pattern}{hint}"


def misspelt(pattern: str, events: Iterable[str]) -> str | None:
    """The pattern that was probably meant; None where this one matches a documented event, or is like none."""
    events = list(events)
    if any(matches(pattern, event) for event in events):
        return None
    prefix = pattern.endswith(".*")
    words = pattern.removesuffix(".*").split(".")
    best, least = None, _FAR
    for event in events:
        known = event.split(".")
        if not prefix and words == known[:1]:
            return f"{event.partition('.')[0]}.*"  # an object alone is no event
        meant = known[: len(words)] if prefix else known
        slips = _slips(words, meant)
        if slips < least:
            best, least = ".".join(meant) + (".*" if len(meant) < len(known) else ""), slips
    return best


def _slips(words: Sequence[str], known: Sequence[str]) -> int:
    """How many letters of a type are wrong; `_FAR` where it is another type rather than a slip."""
    if sorted(words) == sorted(known) or "".join(words).replace("_", "") == "".join(known).replace("_", ""):
        return 1  # paid.invoice, invoice_paid
    if len(words) != len(known):
        return _FAR
    return min(_FAR, sum(_slips_of_word(word, other) for word, other in zip(words, known, strict=True)))


def _slips_of_word(word: str, known: str) -> int:
    if sorted(word) == sorted(known):
        return int(word != known)
    if word.endswith(known) and len(word) > len(known) + 1:
        return _FAR  # unpaid is no slip for paid
    edits = [
        max(end - start, other_end - other_start)
        for kind, start, end, other_start, other_end in SequenceMatcher(None, word, known, False).get_opcodes()
        if kind != "equal"
    ]
    return sum(edits) if 2 * sum(edits) < max(len(word), len(known)) else _FAR
