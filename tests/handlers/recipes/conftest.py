"""The recipes are imported here, before the tests do it, so that importing them leaves no handler registered."""

from __future__ import annotations

from importlib import import_module

from handlers.registry import REGISTRY

RECIPES = ("customers", "dunning", "forwarding", "payments", "receipts")

_before = {handler.name for handler in REGISTRY}
for _recipe in RECIPES:
    import_module(f"handlers.recipes.{_recipe}")
REGISTRY.forget([handler.name for handler in REGISTRY if handler.name not in _before])
