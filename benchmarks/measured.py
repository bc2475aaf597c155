"""Kinds of work that are compared: how long each took in each round, and the table of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(slots=True)
class Measured:
    """Seconds of each kind in each round, and which kind each is compared with: a base with itself."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, seconds: float, base: str) -> None:
        """What a kind took in this round."""
        self.seconds.setdefault(name, []).append(seconds)
        self.bases[name] = base

    def in_turn(self, times: int, works: Mapping[str, Callable[[], object]]) -> None:
        """Do each of these so often, in turn, and note the medians; the first one is the base of the others."""
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(times):
            for name, work in works.items():
                taken[name].append(seconds_of(work))
        for name, found in taken.items():
            self.note(name, median(found), next(iter(works)))

    def last(self) -> str:
        """The round that was just measured, in one line."""
        return ", ".join(f"{name} {found[-1] * 1e3:,.2f} ms" for name, found in self.seconds.items())

    def report(self) -> None:
        """Print of each kind the median, the least, and the ratio to its base in the same round."""
        print(f"\n{'ms':44}{'median':>11}{'least':>11}   ratio (least-most)")
        for name, found in self.seconds.items():
            base = self.bases[name]
            each = [one / other for one, other in zip(found, self.seconds[base], strict=True)]
            ratio = "" if base == name else f"   {median(each):.2f} ({min(each):.2f}-{max(each):.2f}) of {base}"
            print(f"{name:44}{median(found) * 1e3:>11,.2f}{min(found) * 1e3:>11,.2f}{ratio}")
