"""Five tasks that many businesses have, each solved in one file: copy it, change it, name it in BILLHOOK_HANDLERS.

docs/handlers.md goes through them; each has its tests in tests/handlers/recipes, written with `handlers.testing`.
"""
