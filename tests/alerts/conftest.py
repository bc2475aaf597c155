from __future__ import annotations

import logging

import pytest

from tests.alerts import promtool as tool
from tests.alerts.promtool import Promtool

log = logging.getLogger(__name__)


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """promtool; without it these tests are left out, and what they would read is at least parsed by others."""
    try:
        found = tool.found()
    except tool.Lacking as lacking:
        log.warning("the alerts are only parsed: %s", lacking)
        pytest.skip(f"{lacking}; expressions are parsed by promql-parser all the same")
    log.info("the alerts are tested by promtool, %s", found.origin)
    return found
