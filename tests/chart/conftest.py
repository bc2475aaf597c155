"""Helm, once for all tests of the chart."""

from __future__ import annotations

import pytest

from tests.chart.helm import NEW, OLD, Helm, program


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The Helm of today."""
    return Helm(program(NEW), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def old_helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """A Helm of the line before."""
    return Helm(program(OLD), tmp_path_factory.mktemp("old-helm"))
