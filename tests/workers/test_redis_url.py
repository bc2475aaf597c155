"""What a URL of Redis may say, and that an error quotes nothing of it."""

from __future__ import annotations

import re

import pytest

from workers.redis_url import Servers, parse

PASSWORD = "s3cret+of_redis"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://cache", Servers((("cache", 6379),))),
        ("redis://cache/", Servers((("cache", 6379),))),
        ("redis://bill:p%40ss@cache:6380/3", Servers((("cache", 6380),), database=3, username="bill", password="p@ss")),
        ("redis://[::1]:6380", Servers((("::1", 6380),))),
        ("unix:///run/a%20redis.sock?db=2", Servers(socket="/run/a redis.sock", database=2)),
        ("unix://:pass@/redis.sock", Servers(socket="/redis.sock", password="pass")),
        ("redis+sentinel://one/mymaster", Servers((("one", 26379),), name="mymaster")),
        (
            "redis+sentinel://:data@one:26380,[fd00::2],three:1/my-master.1/5?sentinel_username=u&sentinel_password=a+b%26",
            Servers(
                (("one", 26380), ("fd00::2", 26379), ("three", 1)),
                name="my-master.1",
                database=5,
                password="data",
                sentinel_username="u",
                sentinel_password="a+b&",
            ),
        ),
    ],
)
def test_a_url_says_where_the_servers_are(url: str, said: Servers) -> None:
    assert parse(url) == said


@pytest.mark.parametrize("url", ["rediss://cache", "rediss+sentinel://one,two/mymaster"])
def test_with_tls_certificates_are_checked_unless_the_url_says_otherwise(url: str) -> None:
    assert parse(url).tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    assert parse(f"{url}?ssl_ca_certs=/tls/ca.crt&ssl_check_hostname=false").tls == {
        "ssl_ca_certs": "/tls/ca.crt",
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": False,
    }
    assert parse(f"{url}?ssl_cert_reqs=none").tls == {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


WRONG = [
    ("http://:{}@cache", "not a redis://, rediss://, redis+sentinel://, rediss+sentinel:// or unix:// URL"),
    ("{}", "not a redis://"),
    ("sentinel://:{}@one:26379;sentinel://two:26379/0", "redis+sentinel://host:26379,host:26379/name"),
    ("redis://:{}@", "names no host"),
    ("redis://:{}@:6379", "names no host"),
    ("redis://:{}@cache:port", "malformed"),
    ("redis://:{}@cache:0", "malformed"),
    ("redis://:{}@cache:65536", "malformed"),
    ("redis://:{}@[::1", "malformed"),
    ("redis://:x@{}@cache", "%40"),
    ("redis://:{}#x@cache", "%23"),
    ("redis://:{} @cache", "%20"),
    ("redis://:{}@cache/zero", "number of a database"),
    ("redis://:{}@one,two/0", "one host only; the URL of sentinels is redis+sentinel://"),
    ("redis://cache?ssl_password={}", "redis:// has nothing behind ?"),
    ("rediss://cache?ssl_cacerts={}", "behind ? stand, once each: ssl_ca_certs, ssl_certfile"),
    ("rediss://cache?ssl_certfile=&ssl_password={}", "behind ? stand"),
    ("rediss://cache?ssl_password={}&ssl_password=x", "once each"),
    ("rediss://cache?ssl_cert_reqs={}", "required, optional or none"),
    ("rediss://cache?ssl_check_hostname={}", "true or false"),
    ("rediss://cache?ssl_keyfile={}", "ssl_keyfile needs ssl_certfile"),
    ("redis+sentinel://:{}@one", "behind the sentinels stands the name of what they watch"),
    ("redis+sentinel://:{}@one/0", "behind the sentinels stands the name of what they watch"),
    ("redis+sentinel://:{}@one/my/master", "number of a database"),
    ("redis+sentinel://:{}@one,,two/mymaster", "names no host"),
    ("redis+sentinel://one/mymaster?password={}", "behind ? stand, once each: sentinel_username, sentinel_password"),
    ("unix://{}", "whole path"),
    ("unix:///redis.sock?db={}", "number of a database"),
]


@pytest.mark.parametrize(("url", "wanted"), WRONG, ids=[url for url, _ in WRONG])
def test_what_is_wrong_is_said_without_the_password(url: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wanted)) as refused:
        parse(url.format(PASSWORD))

    assert PASSWORD not in str(refused.value)


def test_no_password_shows() -> None:
    url = "rediss+sentinel://bill:first@one/mymaster?sentinel_password=second&ssl_certfile=/tls.pem&ssl_password=third"

    said = parse(url)

    assert said.passwords() == ("first", "second", "third")
    assert not [one for one in said.passwords() if one in repr(said)]
