"""A small server on a real socket that speaks Hesabe's encryption, without our code."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

MERCHANT_CODE, ACCESS_CODE = "842217", "c333729b-d060-4b74-a49d-7686a8353481"
SECRET_KEY, IV_KEY = "PkW64zMe5NVdrlPVNnjo2Jy9nOb7v1Xg", "5NVdrlPVNnjo2Jy9"
USERNAME, PASSWORD = "Test", "Test@1234"
API_KEY = f"{MERCHANT_CODE}:{ACCESS_CODE}:{SECRET_KEY}:{IV_KEY}:{USERNAME}:{PASSWORD}"
TOKEN = "84221716951937729753667644493"

_CIPHER = Cipher(AES(SECRET_KEY.encode()), CBC(IV_KEY.encode()))


def sealed(document: Any, *, bits: int = 256) -> str:
    """As the server encrypts: compact JSON, padded to 32 bytes."""
    padder, encryptor = padding.PKCS7(bits).padder(), _CIPHER.encryptor()
    plain = json.dumps(document, separators=(",", ":")).encode()
    return (encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()).hex()


def opened(text: str) -> Any:
    """What a request hides, padded to 16 bytes as in the documented samples; members in their order."""
    unpadder, decryptor = padding.PKCS7(128).unpadder(), _CIPHER.decryptor()
    padded = decryptor.update(bytes.fromhex(text)) + decryptor.finalize()
    return json.loads(unpadder.update(padded) + unpadder.finalize())


def ok(response: Any = None, *, name: str = "response", **more: Any) -> dict[str, Any]:
    return {"status": True, "message": "Success", name: response, **more}


@dataclass(slots=True)
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> str:
        """The ciphertext: in the query of a GET, in the body of anything else."""
        if self.method == "GET":
            return parse_qs(urlsplit(self.path).query)["data"][0]
        found: str = json.loads(self.body)["data"]
        return found

    @property
    def call(self) -> str:
        return f"{self.method} {urlsplit(self.path).path}"


Answer = tuple[int, bytes]


@dataclass
class Hesabe:
    """Answers with what `routes` has for `METHOD /path`; logs in whoever knows the password."""

    url: str = ""
    routes: dict[str, Callable[[Received], Answer]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    valid: set[str] = field(default_factory=set)
    """Access tokens that are accepted."""
    logins: int = 0
    refreshes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def calls(self) -> list[str]:
        """Without those for a token."""
        paths = [one.call for one in self.received]
        return [path for path in paths if path not in {"POST /api/v1/login", "POST /api/v1/token-refresh"}]

    def answer(self, request: Received) -> Answer:
        with self.lock:
            self.received.append(request)
            if request.call == "POST /api/v1/login":
                self.logins += 1
                known = json.loads(request.body) == {"username": USERNAME, "password": PASSWORD}
                return self._token() if known else refused(401, "Invalid Signature.")
            if request.call == "POST /api/v1/token-refresh":
                self.refreshes += 1
                known = json.loads(request.body)["refreshToken"] == f"refresh-{self._issued()}"
                return self._token() if known else refused(401, "Invalid Signature.")
            token = request.headers.get("authorization", "")
            if request.path.startswith("/api/v1/") and token.removeprefix("Bearer ") not in self.valid:
                return plain({"message": "Unauthenticated."}, 401)
        return self.routes[request.call](request)

    def _issued(self) -> int:
        return self.logins + self.refreshes - 1

    def _token(self) -> Answer:
        number = self.logins + self.refreshes
        access = f"access-{number}"
        self.valid = {access}
        token = {
            "token_type": "Bearer",
            "expires_in": 900,
            "access_token": access,
            "refresh_token": f"refresh-{number}",
        }
        return plain(ok({"token": token}))


def plain(document: Any, status: int = 200) -> Answer:
    return status, json.dumps(document).encode()


def encrypted(document: Any, status: int = 200) -> Answer:
    """The form in which the documentation shows the merchant API's answers."""
    return status, json.dumps({"response": sealed(document)}).encode()


def refused(status: int, message: Any, code: int | None = None) -> Answer:
    inner = {} if code is None else {"code": code}
    return plain({"status": False, **inner, "message": message, "response": None}, status)


@contextlib.contextmanager
def serving(routes: dict[str, Callable[[Received], Answer]] | None = None) -> Iterator[Hesabe]:
    hesabe = Hesabe(routes=routes or {})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, content = hesabe.answer(Received(self.command, self.path, headers, body))
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            hesabe.url = f"http://127.0.0.1:{server.server_port}"
            yield hesabe
        finally:
            server.shutdown()
            thread.join(10)
