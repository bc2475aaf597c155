from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest

from handlers import Context, Discard, Event, Retry
from handlers.errors import ProviderUnavailable, VerificationError
from handlers.event import AT_RECEIPT
from handlers.providers import PROVIDERS, Provider
from handlers.registry import Registry
from handlers.testing import SignedRequest, event, run, signed_request
from tests.handlers.providers.senders import PRIVATE, SENDERS, Sender

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HISAB, STANDARD = PROVIDERS["hisab"], PROVIDERS["standard"]
OPTIONS: Mapping[str, Mapping[str, Any]] = {"generic": {"signature": "X-Signature"}}
EVERY_SAMPLE = [(provider, event_type) for provider in PROVIDERS.values() for event_type in provider.events]
NOW = 1_780_668_000
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


def verified(provider: Provider, request: SignedRequest, now: float = NOW) -> str | None:
    """The delivery id, of a request that a source with these options and the secret accepts."""
    inbound = provider.inbound(OPTIONS.get(provider.name, {}))
    token = b"" if inbound.schemes else SECRET.encode()
    return inbound.verify(request.wire, request.body, [inbound.key(SECRET)], now, token).delivery_id


@pytest.mark.parametrize(("provider", "event_type"), EVERY_SAMPLE)
def test_every_sample_of_every_provider_is_accepted_by_its_receiver(provider: Provider, event_type: str) -> None:
    options = OPTIONS.get(provider.name, {})
    request = signed_request(provider, event_type, SECRET, now=NOW, options=options)

    verified(provider, request)
    event = provider.inbound(options).parse(request.wire, request.body)

    assert event.type == event_type
    assert event.provider == provider.name
    assert event.data == provider.data(request.body)


@pytest.mark.parametrize(("provider", "event_type"), EVERY_SAMPLE)
def test_a_renewed_sample_is_another_event_of_that_moment(provider: Provider, event_type: str) -> None:
    parse = provider.inbound(OPTIONS.get(provider.name, {})).parse
    moment = datetime(2026, 7, 1, 12, 30, 15, 123_456, tzinfo=UTC)
    sample = provider.sample(event_type)

    first, second = (
        signed_request(
            provider,
            event_type,
            SECRET,
            body=provider.renewed(sample, at),
            now=NOW,
            options=OPTIONS.get(provider.name, {}),
        )
        for at in (moment, moment.replace(microsecond=0))
    )

    assert len({orjson.dumps(sample), first.body, second.body}) == 3
    event = parse(first.wire, first.body)
    assert event.type == event_type
    assert event.key is None or event.key != parse(second.wire, second.body).key


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=list(PROVIDERS))
def test_every_provider_has_a_sample_and_none_of_another_event(provider: Provider) -> None:
    assert provider.events
    with pytest.raises(KeyError):
        provider.sample("plan.changed")


@pytest.mark.parametrize(
    "sender", [pytest.param(sender, id=sender.name) for sender in SENDERS if sender.secret not in PRIVATE]
)
def test_a_request_is_signed_as_the_options_of_the_source_say(sender: Sender) -> None:
    request = signed_request(
        PROVIDERS[sender.provider],
        "invoice.paid",
        sender.secret,
        delivery_id="del_1",
        now=NOW + 0.9,
        options=sender.options,
    )

    inbound = sender.inbound
    assert inbound.verify(request.wire, request.body, [inbound.key(sender.secret)], NOW).timestamp in {NOW, None}


def test_the_event_type_is_repeated_where_the_provider_repeats_it() -> None:
    request = signed_request(HISAB, "invoice.paid", SECRET, delivery_id="del_1", now=NOW)

    assert request.headers["x-webhook-event"] == "invoice.paid"
    assert request.headers["content-type"] == "application/json"
    assert verified(HISAB, request) == "del_1"


def test_only_what_the_provider_sends_is_sent() -> None:
    request = signed_request(STANDARD, "invoice.paid", SECRET, delivery_id="msg_1", now=NOW)

    assert request.headers["webhook-signature"].startswith("v1,")
    assert set(request.headers) == {"content-type", "webhook-id", "webhook-timestamp", "webhook-signature"}


@pytest.mark.parametrize("provider", [HISAB, STANDARD, PROVIDERS["hibr"]])
def test_a_forged_delivery_is_refused(provider: Provider) -> None:
    request = signed_request(provider, "invoice.paid", SECRET, now=NOW, forged=True)

    with pytest.raises(VerificationError) as refused:
        verified(provider, request)

    assert refused.value.reason == "bad_signature"


def test_bytes_are_signed_as_they_are() -> None:
    body = b'{ "event": "plan.changed" }'

    request = signed_request(HISAB, "plan.changed", SECRET, body=body, delivery_id="del_1", now=NOW)

    assert request.body is body
    assert verified(HISAB, request) == "del_1"


def test_a_document_takes_the_place_of_the_sample() -> None:
    document = {**HISAB.sample("invoice.paid"), "organization_id": "org_2"}

    request = signed_request(HISAB, "invoice.paid", SECRET, body=document)

    assert orjson.loads(request.body) == document
    assert HISAB.inbound({}).parse(request.wire, request.body).organization == "org_2"


def test_each_delivery_has_its_own_id_and_the_time_of_the_clock() -> None:
    requests = [signed_request(HISAB, "invoice.paid", SECRET) for _ in range(2)]

    assert len({verified(HISAB, request, time.time()) for request in requests}) == 2


def test_an_event_type_without_a_sample_needs_a_body() -> None:
    with pytest.raises(KeyError):
        signed_request(HISAB, "plan.changed", SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whpk_" + "A" * 42 + "E=", "not base64"])
def test_a_secret_that_cannot_sign_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match=r"secret|public key"):
        signed_request(STANDARD, "invoice.paid", secret)


def test_an_option_that_the_provider_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="option"):
        signed_request(HISAB, "invoice.paid", SECRET, options={"livemode": True})


def test_a_secret_shows_in_no_repr() -> None:
    assert SECRET not in repr(signed_request(HISAB, "invoice.paid", SECRET))


# --- event ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "event_type"), EVERY_SAMPLE)
def test_an_event_is_its_providers_sample_as_a_delivery_is_read(provider: Provider, event_type: str) -> None:
    options = OPTIONS.get(provider.name, {})
    request = signed_request(provider, event_type, SECRET, options=options)

    made = event(event_type, provider=provider.name, options=options)

    read = provider.inbound(options).parse(request.wire, request.body)
    assert (made.type, made.data, made.object_kind, made.object_id) == (
        read.type,
        read.data,
        read.object_kind,
        read.object_id,
    )
    assert (made.provider, made.source) == (provider.name, provider.name)
    assert orjson.loads(made.body) == orjson.loads(request.body)
    assert made.occurred_at == made.received_at != AT_RECEIPT


@pytest.mark.parametrize(("provider", "event_type"), EVERY_SAMPLE)
def test_data_takes_the_place_of_what_the_sample_says(provider: Provider, event_type: str) -> None:
    options = OPTIONS.get(provider.name, {})
    before = event(event_type, provider=provider.name, options=options)

    after = event(event_type, provider=provider.name, options=options, data={"marked": "here"})

    assert after.data == {**before.data, "marked": "here"}
    assert provider.data(after.body) == after.data
    assert after.id != before.id


def test_the_views_read_the_given_data() -> None:
    made = event("invoice.paid", data={"id": "inv_2", "total": Decimal("120.50"), "customer": {"id": "cus_7"}})

    assert (made.object_id, made.invoice.id) == ("inv_2", "inv_2")
    assert (made.invoice.total, made.invoice.customer_id) == (Decimal("120.50"), "cus_7")
    assert event("customer.created").customer.id == "cus_2b81fe"


def test_fields_of_an_event_are_as_they_are_given() -> None:
    made = event("invoice.paid", id="evt_1", source="shop", occurred_at=NEW_YEAR, organization="org_2")

    assert (made.id, made.source, made.provider, made.organization) == ("evt_1", "shop", "hisab", "org_2")
    assert (made.occurred_at, made.received_at) == (NEW_YEAR, NEW_YEAR)
    assert event("invoice.paid", received_at=NEW_YEAR).received_at == NEW_YEAR


def test_the_same_content_is_one_event_and_any_other_is_another() -> None:
    made = event("invoice.paid")

    assert re.fullmatch(r"evt_[0-7][0-9A-Z]{25}", made.id)
    assert event("invoice.paid") == made
    others = [
        event("invoice.sent"),
        event("invoice.paid", source="shop"),
        event("invoice.paid", data={"id": "inv_2"}),
        event("invoice.paid", occurred_at=NEW_YEAR),
    ]
    assert len({made.id, *(other.id for other in others)}) == 5


def test_an_event_whose_sender_says_no_time_occurred_when_it_was_received() -> None:
    made = event(
        "invoice.paid", provider="generic", options=OPTIONS["generic"], data={"id": "inv_1"}, received_at=NEW_YEAR
    )

    assert made.occurred_at == NEW_YEAR


def test_a_type_without_a_sample_is_what_its_data_says() -> None:
    made = event("order.made", provider="standard", data={"id": 7, "total": "1.00"})

    assert (made.type, made.data) == ("order.made", {"id": 7, "total": "1.00"})
    assert (made.object_kind, made.object_id) == ("order", "7")
    with pytest.raises(ValueError, match=r"standard has no sample of 'order.made', so give data; .* invoice.paid"):
        event("order.made", provider="standard")


def test_a_misspelt_type_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"hisab has no sample of 'invoice.payed'.*invoice\.paid"):
        event("invoice.payed")


def test_billhooks_own_events_are_made_as_well() -> None:
    generated = event("recurring.generated", provider="billhook", data={"schedule_id": "sch_9"})

    assert (generated.object_kind, generated.object_id) == ("schedule", "sch_9")
    assert generated.data["invoice"]["total"] == "12480.00"
    assert event("recurring.failed", provider="billhook").data["error"]["code"] == "CUSTOMER_INACTIVE"
    disabled = event("billhook.endpoint.disabled", provider="billhook", data={"endpoint_id": "ep_9"})
    assert (disabled.source, disabled.object_kind, disabled.object_id) == ("billhook", "endpoint", "ep_9")
    assert event("billhook.delivery.exhausted", provider="billhook").object_kind == "delivery"
    with pytest.raises(ValueError, match=r"recurring\.generated"):
        event("recurring.generatd", provider="billhook")


def test_a_provider_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"there is no provider 'hisba'; there is hisab, .* and billhook"):
        event("invoice.paid", provider="hisba")


def test_a_field_that_events_have_not_is_refused() -> None:
    with pytest.raises(TypeError, match="sauce"):
        event("invoice.paid", sauce="shop")


# --- run ------------------------------------------------------------------------------------------


def test_a_function_is_run_without_being_registered() -> None:
    def issue(event: Event, ctx: Context) -> None:
        ctx.logger.info("%s of them", "one", invoice=event.object_id)
        ctx.emit("receipt.issued", {"total": event.invoice.total})

    ran = run(issue, event("invoice.paid"))

    assert (ran.outcome, ran.error, ran.trace) == ("succeeded", None, "")
    assert ran.emitted == [("receipt.issued", {"total": "12480.00"})]
    assert ran.emitted[0].type == "receipt.issued"
    assert ran.handler.endswith("issue")
    assert ran.seconds >= 0
    assert [(line["event"], line["log_level"], line["invoice"], line["event_id"]) for line in ran.log] == [
        ("one of them", "info", "inv_8f3a91", ran.event.id)
    ]


def test_an_async_function_is_run_to_its_end() -> None:
    async def slow() -> int:
        await asyncio.sleep(0)
        return 7

    async def handler(event: Event, ctx: Context) -> None:
        ctx.emit("answer.found", {"answer": await ctx.step("look", slow)})

    first = run(handler, event("invoice.paid"))
    again = run(handler, event("invoice.paid"), store=first.store)

    assert first.emitted == again.emitted == [("answer.found", {"answer": 7})]
    assert again.steps == {"look": 7}


def handler_that(does: Callable[[Context], object]) -> Callable[[Event, Context], None]:
    def handler(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {})
        does(ctx)

    return handler


def raising(error: BaseException) -> Callable[[Event, Context], None]:
    def handler(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {})
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("no"), "failed"),
        (SystemExit(0), "failed"),
        (asyncio.CancelledError(), "failed"),
        (ProviderUnavailable("HTTP_503", "later"), "failed"),
        (Retry(after=60), "retry"),
        (Discard("not ours"), "discarded"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_a_handler_raises_decides_the_outcome_and_nothing_is_emitted(error: BaseException, outcome: str) -> None:
    ran = run(raising(error), event("invoice.paid"))

    assert (ran.outcome, ran.error, ran.emitted, ran.keys) == (outcome, error, [], [])


def test_an_interrupt_ends_the_test_and_not_the_handler() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(raising(KeyboardInterrupt()), event("invoice.paid"))


def test_steps_that_have_returned_are_not_called_by_the_next_start() -> None:
    calls: list[str] = []

    def pdf() -> bytes:
        calls.append("pdf")
        return b"%PDF"

    def handler(event: Event, ctx: Context) -> None:
        ctx.step("first", lambda: calls.append("first"))
        ctx.step("pdf", pdf)
        if ctx.attempt == 1:
            raise ConnectionError
        ctx.emit("receipt.issued", {"pages": 1}, key="june")

    first = run(handler, event("invoice.paid"))
    again = run(handler, event("invoice.paid"), store=first.store)

    assert (first.outcome, first.attempt, again.outcome, again.attempt) == ("failed", 1, "succeeded", 2)
    assert calls == ["first", "pdf"]
    assert first.steps == again.steps == {"first": None, "pdf": b"%PDF"}


def test_an_emit_has_the_same_key_in_every_start() -> None:
    def handler(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {})
        ctx.emit("receipt.issued", {}, key="copy")

    first = run(handler, event("invoice.paid"))
    again = run(handler, event("invoice.paid"), store=first.store)

    assert len(set(first.keys)) == 2
    assert (again.keys, again.emitted) == (first.keys, first.emitted)


def test_a_pause_is_over_when_its_time_has_come() -> None:
    def handler(event: Event, ctx: Context) -> None:
        ctx.sleep_until(NEW_YEAR)
        ctx.sleep_until(NEW_YEAR + timedelta(days=3))
        ctx.emit("reminder.sent", {})

    first = run(handler, event("invoice.paid"), now=NEW_YEAR - timedelta(days=30))
    second = run(handler, event("invoice.paid"), now=NEW_YEAR, store=first.store)
    third = run(handler, event("invoice.paid"), now=NEW_YEAR + timedelta(days=3), store=first.store)

    assert (first.outcome, first.paused_until, first.error) == ("paused", NEW_YEAR, None)
    assert (second.outcome, second.paused_until) == ("paused", NEW_YEAR + timedelta(days=3))
    assert (third.outcome, third.attempt, third.paused_until) == ("succeeded", 1, None)
    assert third.emitted == [("reminder.sent", {})]


@pytest.mark.parametrize("error", [None, ValueError("no"), Retry(after=1)], ids=["returns", "fails", "retries"])
def test_a_pause_that_a_handler_swallows_is_one_all_the_same(error: Exception | None) -> None:
    def handler(event: Event, ctx: Context) -> None:
        ctx.emit("reminder.sent", {})
        try:
            ctx.sleep_until(NEW_YEAR)
        except BaseException:
            if error is not None:
                raise error from None

    first = run(handler, event("invoice.paid"), now=NEW_YEAR - timedelta(days=30))
    then = run(handler, event("invoice.paid"), now=NEW_YEAR, store=first.store)

    assert (first.outcome, first.error, first.paused_until, first.emitted) == ("paused", None, NEW_YEAR, [])
    assert (then.outcome, then.attempt, then.emitted) == ("succeeded", 1, [("reminder.sent", {})])


def test_without_a_time_of_the_tests_own_pauses_go_by_the_clock() -> None:
    later = handler_that(lambda ctx: ctx.sleep_until(datetime.now(UTC) + timedelta(hours=1)))
    past = handler_that(lambda ctx: ctx.sleep_until(datetime.now(UTC) - timedelta(hours=1)))

    assert run(later, event("invoice.paid")).outcome == "paused"
    assert run(past, event("invoice.paid")).outcome == "succeeded"


def test_a_key_is_one_events_until_that_has_succeeded_and_then_nobodys() -> None:
    taken: list[bool] = []
    handler = handler_that(lambda ctx: taken.append(ctx.once("pay inv_1")))
    first, second = event("invoice.paid"), event("invoice.paid", data={"id": "inv_2"})

    store = run(handler, first).store
    run(handler, second, store=store)
    run(handler, first, store=store)  # as if its process had died before the success was written
    run(handler, first, store=store, replay=True)
    run(handler_that(lambda ctx: taken.append(ctx.once("pay inv_1"))), second)

    assert taken == [True, False, True, False, True]


def test_a_key_that_a_replay_asks_for_first_is_free() -> None:
    taken: list[bool] = []

    def handler(event: Event, ctx: Context) -> None:
        if ctx.replay:
            taken.append(ctx.once("new"))

    store = run(handler, event("invoice.paid")).store
    run(handler, event("invoice.paid"), store=store, replay=True)

    assert taken == [True]


def test_handlers_have_keys_of_their_own() -> None:
    taken: list[bool] = []

    def one(event: Event, ctx: Context) -> None:
        taken.append(ctx.once("key"))

    def other(event: Event, ctx: Context) -> None:
        taken.append(ctx.once("key"))

    run(other, event("invoice.sent"), store=run(one, event("invoice.paid")).store)

    assert taken == [True, True]


def test_a_replay_resumes_what_failed_and_begins_anew_what_succeeded() -> None:
    calls: list[int] = []

    def handler(event: Event, ctx: Context) -> None:
        calls.append(ctx.step("number", lambda: len(calls)))
        if not ctx.replay and ctx.attempt == 1:
            raise ConnectionError

    store = run(handler, event("invoice.paid")).store
    resumed = run(handler, event("invoice.paid"), store=store, replay=True)
    anew = run(handler, event("invoice.paid"), store=store, replay=True)

    assert (resumed.outcome, resumed.attempt, anew.outcome) == ("succeeded", 1, "succeeded")
    assert calls == [0, 0, 2]


def test_an_event_is_stale_once_a_newer_one_of_its_object_succeeded() -> None:
    stale: list[bool] = []
    handler = handler_that(lambda ctx: stale.append(ctx.is_stale))
    newer, older = (event("customer.updated", occurred_at=NEW_YEAR + timedelta(hours=hour)) for hour in (2, 1))
    another = event("customer.updated", occurred_at=NEW_YEAR, data={"id": "cus_9"})

    store = run(handler, newer).store
    for one in (older, another, newer):
        run(handler, one, store=store)
    without_an_object = event("order.made", provider="standard", data={})
    run(handler, without_an_object, store=store)

    assert stale == [False, True, False, False, False]


def test_what_failed_makes_nothing_stale() -> None:
    def handler(event: Event, ctx: Context) -> None:
        ctx.emit("customer.synced", {"stale": ctx.is_stale})
        if event.occurred_at > NEW_YEAR:
            raise ConnectionError

    store = run(handler, event("customer.updated", occurred_at=NEW_YEAR + timedelta(hours=1))).store

    assert run(handler, event("customer.updated", occurred_at=NEW_YEAR), store=store).emitted == [
        ("customer.synced", {"stale": False})
    ]


@pytest.mark.parametrize("asked", [None, "hisab", "shop"])
@pytest.mark.parametrize("given", ["hisab", "shop"])
def test_the_client_of_the_events_source_goes_by_its_name_or_the_providers(asked: str | None, given: str) -> None:
    found: list[Any] = []

    run(
        handler_that(lambda ctx: found.append(ctx.client(asked))),
        event("invoice.paid", source="shop"),
        clients={given: "the client", "hibr": "another"},
    )

    assert found == ["the client"]


def test_another_sources_client_goes_by_the_name_it_was_given() -> None:
    found: list[Any] = []

    run(handler_that(lambda ctx: found.append(ctx.client("hibr"))), event("invoice.paid"), clients={"hibr": "of hibr"})

    assert found == ["of hibr"]


@pytest.mark.parametrize(("asked", "named"), [(None, "hisab"), ("hisab", "hisab"), ("hesabe", "hesabe")])
def test_a_client_that_was_not_given_is_unavailable_as_in_a_worker(asked: str | None, named: str) -> None:
    ran = run(handler_that(lambda ctx: ctx.client(asked)), event("invoice.paid"), clients={"hibr": object()})

    assert ran.outcome == "failed"
    assert isinstance(ran.error, ProviderUnavailable)
    assert str(ran.error) == f"NO_SOURCE: there is no client '{named}': run(…, clients={{'{named}': …}})"


def test_what_finds_the_clients_can_be_a_function() -> None:
    found: list[Any] = []

    run(handler_that(lambda ctx: found.append(ctx.client("x"))), event("invoice.paid"), clients=lambda name: [name])

    assert found == [["x"]]


def test_a_registered_handler_goes_by_its_name_and_its_condition() -> None:
    registry = Registry()
    ran: list[str] = []

    @registry.on("invoice.*", name="large", when=lambda event: event.invoice.total is not None)
    def handler(event: Event, ctx: Context) -> None:
        ran.append(event.type)

    (registered,) = registry

    wanted = run(registered, event("invoice.paid"))
    unwanted = run(registered, event("invoice.paid", data={"total": None}))

    assert (wanted.handler, wanted.outcome) == ("large", "succeeded")
    assert unwanted.outcome == "discarded"
    assert ran == ["invoice.paid"]


def test_a_callable_without_a_name_is_run_too() -> None:
    class Handle:
        def __call__(self, event: Event, ctx: Context) -> None:
            ctx.emit("receipt.issued", {})

    ran = run(Handle(), event("invoice.paid"))

    assert ran.outcome == "succeeded"
    assert ran.handler.endswith("Handle")


def test_attempt_and_first_seen_are_what_a_worker_would_say() -> None:
    seen: list[Any] = []
    handler = handler_that(lambda ctx: seen.append((ctx.attempt, ctx.first_seen, ctx.replay, ctx.event.id)))
    made = event("invoice.paid", received_at=NEW_YEAR)

    run(handler, made, attempt=5)

    assert seen == [(5, NEW_YEAR, False, made.id)]


def test_a_trace_has_the_authors_lines_only() -> None:
    async def inner(ctx: Context) -> None:
        try:
            ctx.client("nowhere")
        except ProviderUnavailable as error:
            raise LookupError("no client") from error

    async def handler(event: Event, ctx: Context) -> None:
        await inner(ctx)

    trace = run(handler, event("invoice.paid")).trace

    assert set(re.findall(r'File "([^"]+)"', trace)) == {__file__}
    assert trace.count("in inner") == 2
    assert trace.splitlines()[-1] == "LookupError: no client"
    assert "handlers.errors.ProviderUnavailable: NO_SOURCE" in trace


def test_testing_needs_no_server_stack() -> None:
    program = (
        "import sys, handlers.testing as t; t.run(lambda event, ctx: None, t.event('invoice.paid')); "
        "heavy = {'starlette', 'celery', 'redis', 'sqlalchemy', 'prometheus_client', 'aiohttp'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
