"""The providers Billhook knows: one folder each, and one line in the table below.

Nobody outside a provider's folder names it; everybody else goes through `PROVIDERS`.
"""

from __future__ import annotations

from handlers.providers.hisab import PROVIDER as HISAB
from handlers.providers.provider import Provider

PROVIDERS: dict[str, Provider] = {provider.name: provider for provider in (HISAB,)}

__all__ = ["PROVIDERS", "Provider"]
