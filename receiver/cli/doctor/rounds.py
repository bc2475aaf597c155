"""Making the checks: all at once, each for a bounded time, whatever becomes of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from receiver.cli.doctor.finding import LIMIT, Check, Finding, NothingYet, Site, failed, late


def examine(checks: Mapping[str, Check], site: Site, *, here: str) -> list[Finding]:
    """What each check finds, in their order. `here` is made by this thread, while the others are under way."""
    found: dict[str, list[Finding]] = {}
    deadline = time.monotonic() + LIMIT
    threads = [
        threading.Thread(target=_make, args=(name, check, site, found), daemon=True)
        for name, check in checks.items()
        if name != here
    ]
    for thread in threads:
        thread.start()
    _make(here, checks[here], site, found)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [finding for name in checks for finding in found.get(name, [late(name)])]


def _make(name: str, check: Check, site: Site, found: dict[str, list[Finding]]) -> None:
    try:
        findings = list(check(site))
    except NothingYet:
        findings = []
    except Exception as error:  # one that cannot be made is a finding too
        findings = [failed(name, error)]
    found[name] = findings
