"""Where HIBR's API is, and by what it is reached: HTTPS with TLS 1.3, plain HTTP only to this machine."""

from __future__ import annotations

import ipaddress
import ssl

import httpx

from handlers.providers.http import trust

API_URL = "https://api.hibr.ai"
SANDBOX_API_URL = "https://sandbox-api.hibr.ai"
APP_URL = "https://app.hibr.ai"

LIVE, TEST = "hibr_live_", "hibr_test_"
"""How keys of the two environments begin; an OAuth access token begins with neither."""


def address(url: str, name: str = "api_url") -> str:
    """An address as it is, without a slash at its end.

    Raises ValueError unless it is https:// (or http:// to a loopback host, for a sandbox), without user and password,
    query and fragment.
    """
    parts = _parts(url, name)
    if parts.scheme != "https" and not is_loopback(parts.host):
        raise ValueError(f"{name} begins with https://; http:// is for a sandbox on this machine only (127.0.0.1)")
    if parts.userinfo or parts.query or parts.fragment:
        raise ValueError(f"{name} has neither a user and password nor a query or fragment")
    return url.rstrip("/")


def redirect_address(uri: str) -> str:
    """Where HIBR sends a browser back to, as it is. Raises ValueError as `address`; a query is allowed."""
    address(uri.partition("?")[0], "redirect_uri")
    if "#" in uri:
        raise ValueError("redirect_uri has no fragment")
    return uri


def api_address(api_key: str, api_url: str | None) -> str:
    """The address that a key is for, or `api_url` if it is given.

    Raises ValueError as `address`, and where a key would be sent to the environment that it is not for.
    """
    if api_url is None:
        return SANDBOX_API_URL if api_key.startswith(TEST) else API_URL
    url = address(api_url)
    host = httpx.URL(url).host
    if api_key.startswith(TEST) and host == httpx.URL(API_URL).host:
        raise ValueError(f"a {TEST}… key is for the sandbox: api_url is {SANDBOX_API_URL}")
    if api_key.startswith(LIVE) and host == httpx.URL(SANDBOX_API_URL).host:
        raise ValueError(f"a {LIVE}… key is for production: api_url is {API_URL}")
    return url


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_transport() -> httpx.HTTPTransport:
    """The network, with TLS 1.3 at least (HIBR API reference, Base URL & environments)."""
    return httpx.HTTPTransport(verify=trust(ssl.TLSVersion.TLSv1_3), trust_env=False)


def _parts(url: str, name: str) -> httpx.URL:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{name} is no address: {error}") from None
    if not parts.host or parts.scheme not in {"https", "http"}:
        raise ValueError(f"{name} is an address that begins with https://")
    return parts
