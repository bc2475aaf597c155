"""The providers Billhook knows: one folder each, and one line in the table below.

Nobody outside a provider's folder names it; everybody else goes through `PROVIDERS`.
"""

from __future__ import annotations

from handlers.providers.generic import PROVIDER as GENERIC
from handlers.providers.hesabe import PROVIDER as HESABE
from handlers.providers.hibr import PROVIDER as HIBR
from handlers.providers.hisab import PROVIDER as HISAB
from handlers.providers.provider import Inbound, Provider
from handlers.providers.standard import PROVIDER as STANDARD

PROVIDERS: dict[str, Provider] = {provider.name: provider for provider in (HISAB, HIBR, HESABE, STANDARD, GENERIC)}

__all__ = ["PROVIDERS", "Inbound", "Provider"]
