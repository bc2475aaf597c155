"""What the providers' sandboxes share: fakes of documented APIs that keep their state and send webhooks.

A sandbox is a Starlette app over one `Machine`. It reads like this (`handlers.providers.hisab.sandbox` is the model):

    class Model(DeclarativeBase): ...              # the provider's own tables, in its own metadata
    class Invoice(Model): ...

    def create_app(*, path=None, webhooks=(), clock=None, faults=None, now=time.time, transport=None, ...) -> Starlette:
        machine = Machine(
            store=Store(path, Model.metadata),     # None: in memory
            wall=now,                              # what signatures and rate limits go by
            start=clock,                           # where the sandbox's own time begins (new files only)
            sender=Sender(sign=signed_by(PROVIDER), headers={"user-agent": "..."}, transport=transport),
            render=refused,                        # Refusal -> the provider's error body
            failures={"error": Refusal(500, ...), "too_many": Refusal(429, ..., headers={"Retry-After": "1"})},
            alarm=Schedules(),                     # optional: what happens when its time comes
        )
        with machine.store.transaction() as session:
            seed(session)                          # keys.add(...), webhooks.add(...), faults.arm(...)
        routes = [Route("/v1/invoices", machine.endpoint(create_invoice), methods=["POST"]), ...]
        routes += admin.routes(machine, new_key=new_key)
        app = Starlette(routes=routes, lifespan=machine.lifespan)
        app.state.sent, app.state.machine = machine.sender.sent, machine
        return app

    def create_invoice(call: Call) -> Response:    # one transaction; a Refusal rolls it back
        body = fields.read(CreateInvoice, fields.document(call.raw))
        invoice = Invoice(...)
        call.session.add(invoice)
        call.emit("invoice.created", {...})        # in the outbox, in the same transaction; sent after the answer
        return JSONResponse(...)

store     `Store(path, *metadata)`; `store.transaction()` gives a Session: committed at the end, or rolled back.
          Synchronous. `Model` is the root of the tables below, which are named `sandbox_...`.
clock     `Clock`: `wall()` is the machine's time in Unix seconds, `now()` the sandbox's own as a UTC datetime, which
          can be set forward. Dates and `created_at` go by `now()`; signatures, rate limits and Retry-After by `wall()`,
          because who receives them has a watch of their own.
machine   `Machine`, `Call`, `Refusal`, `Alarm`. `machine.endpoint(work)` makes a Starlette endpoint of
          `work(call) -> Response | Later`; `Later` is a function without arguments that is run in a thread after the
          commit (for what takes long: a PDF). `call.session`, `.request`, `.raw`, `.id`, `.now`, `.emit(...)`.
          `Alarm.next(session) -> datetime | None` and `Alarm.ring(machine, session, moment)`: what falls due by the
          sandbox's clock. It is rung before each call, each second when served, and in order when the clock is moved.
keys      API keys, kept as SHA-256: `add`, `find`, `revoke`, `bearer`; what `Key.kind`, `.owner` and `.scopes` mean is
          the provider's.
limits    `Limits(wall).count(key_id, limit) -> Usage`: calls in the current minute; `Usage.headers`, `.exceeded`,
          `.retry_after`. Bursts and concurrency are the provider's.
faults    switches that strike the next calls or webhooks; `arm`, `arm_all`, `strike`. Machine and outbox apply them.
webhooks  the endpoints and the outbox: `add`, `enqueue`, `replay`. To endpoints that were configured, or to a URL that
          a request names (`call.emit(..., url=...)`).
sender    `Sender`: signs and posts what the outbox holds, again after `retry_delays` until it is answered 2xx; `sent`
          lists the attempts as `Sent(delivery_id, event_type, status)`. `signed_by(provider)` is the signature of
          `handlers.testing.signed_request`; a provider that does not sign gives a function of its own (`Sign`).
fields    `document(raw)`: the body as an object, fractions as Decimal, or NotJson; `read(model, data)`: a pydantic
          model (`Fields`), or Invalid with `[{"field": "items[0].quantity", "message": ...}]`; the types of the fields.
admin     `/sandbox`: what is not the provider's but the sandbox's own, over HTTP; see its docstring. `admin.surface`
          makes further endpoints of that kind.

Only modules of sandboxes import Starlette and SQLAlchemy; nothing else in `handlers` imports a sandbox.
"""
