"""The command `billhook` without its start: a process that has read all modules forks for each command it is sent.

A shell that follows a page gives many commands, each of which would take a second to begin and a tenth to end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

READ = (
    *("alembic.command", "rich.table", "sqlalchemy.dialects.postgresql.psycopg", "workers.audit", "workers.database"),
    *("workers.delivery.endpoints", "workers.delivery.reencryption", "workers.reconcile", "workers.schedule.schedules"),
)
"""What commands read only when they run."""
CLIENT = """#!{python} -IS
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(server, [len(asked).to_bytes(4)], [0, 1, 2])
    server.sendall(asked)
    sys.exit(server.recv(1)[0])
"""


@contextmanager
def forking(program: Path) -> Iterator[None]:
    """Have the program be `billhook` for the block."""
    address = str(program.with_suffix(".socket"))
    with subprocess.Popen([sys.executable, "-m", __name__, address], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        program.write_text(CLIENT.format(python=sys.executable, address=address))
        program.chmod(0o755)
        try:
            yield
        finally:
            server.terminate()


def main() -> None:
    """Fork for whoever connects to the socket that the argument names."""
    for name in ("receiver.cli", *READ):
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(sys.argv[1])
        server.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = server.accept()
            with connection:
                if os.fork() == 0:
                    os._exit(carry_out(connection))


def carry_out(connection: socket.socket) -> int:
    """Be the command that is asked for; its status."""
    from receiver.cli import main as command

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    asked = b""
    while len(asked) < int.from_bytes(length):
        asked += connection.recv(65536)
    sys.argv, environment, folder = json.loads(asked)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    status = 1
    try:
        command()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        connection.sendall(bytes([status]))
    return status


if __name__ == "__main__":
    main()
