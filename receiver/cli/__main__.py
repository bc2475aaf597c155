"""`python -m receiver.cli`: the command without its script."""

from __future__ import annotations

from receiver.cli import main

main()
