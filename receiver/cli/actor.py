"""Who gives a command, as the audit log names them."""

from __future__ import annotations

import os
import pwd
import socket


def actor() -> str:
    """The user of the operating system, and on which machine."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
