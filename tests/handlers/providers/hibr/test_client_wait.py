"""The client over real connections: waits, repetitions, TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from handlers.errors import ProviderUnavailable
from handlers.providers.hibr.client import HibrClient

KEY = "hibr_test_s3cret0123456789"
Answer = tuple[int, dict[str, str], bytes]
Asked = list[tuple[str, str | None, bytes]]

LIMITED: Answer = (429, {"Retry-After": "7"}, b'{"error":{"code":"rate_limit_error","message":"Slow down"}}')
CREATED: Answer = (201, {}, b'{"id":"inv_1","object":"invoice"}')


@contextlib.contextmanager
def serving(*answers: Answer | None) -> Iterator[tuple[str, Asked]]:
    """A server that gives these answers in turn (None: hangs up), and what it was asked: path, key, body."""
    asked: Asked = []
    coming = iter(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append((self.path, self.headers["idempotency-key"], body))
            answer = next(coming)
            if answer is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's word
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}", asked


@contextlib.contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_a_limit_is_waited_out_as_long_as_it_asks_for() -> None:
    slept: list[float] = []

    with (
        serving(LIMITED, LIMITED, CREATED) as (url, asked),
        HibrClient(api_key=KEY, api_url=url, sleep=slept.append) as client,
    ):
        created = client.invoices.create(customer_id="cust_1")

    assert created["id"] == "inv_1"
    assert slept == [7.0, 7.0]
    assert len(asked) == 3
    assert len(set(asked)) == 1  # the same path, key and body


def test_a_caller_that_waits_elsewhere_is_told_how_long() -> None:
    slept: list[float] = []

    with (
        serving(LIMITED) as (url, asked),
        HibrClient(api_key=KEY, api_url=url, max_wait=0, sleep=slept.append) as client,
        pytest.raises(ProviderUnavailable) as failed,
    ):
        client.invoices.create(customer_id="cust_1")

    assert (failed.value.code, failed.value.retry_after) == ("rate_limit_error", 7.0)
    assert (len(asked), slept) == (1, [])


def test_a_creation_whose_answer_was_lost_is_repeated_under_its_key() -> None:
    slept: list[float] = []

    with (
        serving(None, (503, {}, b""), CREATED) as (url, asked),
        HibrClient(api_key=KEY, api_url=url, sleep=slept.append) as client,
    ):
        created = client.invoices.create(customer_id="cust_1")

    assert created["id"] == "inv_1"
    assert len(asked) == 3
    assert len({key for _, key, _ in asked}) == 1
    assert len(slept) == 2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    start = datetime.now(UTC) - timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@contextlib.contextmanager
def tls_serving(certificate: Path, shape: Callable[[ssl.SSLContext], None]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    shape(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def only_1_2(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("shape", "reason"), [(only_1_2, "PROTOCOL_VERSION"), (lambda context: None, "CERTIFICATE_VERIFY_FAILED")]
)
def test_only_a_trusted_server_with_tls_1_3_gets_the_key(
    certificate: Path, shape: Callable[[ssl.SSLContext], None], reason: str
) -> None:
    with (
        tls_serving(certificate, shape) as url,
        HibrClient(api_key=KEY, api_url=url, retries=0) as client,
        pytest.raises(ProviderUnavailable) as failed,
    ):
        client.invoices.get("inv_1")

    assert failed.value.code == "NO_ANSWER"
    assert reason in str(failed.value)
