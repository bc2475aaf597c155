# One image for every command: serve (the default), work, beat, migrate, and all that `billhook --help` lists.
# docs/deployment.md says how to build it from a base named by digest, and how to run it.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# What builds and what runs are two environments: no pip and no hatchling where the receiver is.
COPY requirements-build.lock requirements-image.lock ./
RUN python -m venv tools \
    && tools/bin/pip install --no-deps --require-hashes --only-binary :all: -r requirements-build.lock
# Only wheels: there is no compiler, here or later.
RUN python -m venv --without-pip /opt/billhook \
    && tools/bin/pip --python /opt/billhook/bin/python install --no-compile \
        --no-deps --require-hashes --only-binary :all: -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY handlers handlers
COPY workers workers
COPY receiver receiver
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/pip --python /opt/billhook/bin/python install --no-compile --no-deps --no-index wheels/*.whl
# Nobody may write beside the code later, so it is compiled now, and taken as it is whatever time a file bears.
RUN /opt/billhook/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/billhook/lib

FROM ${PYTHON_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Billhook" \
    org.opencontainers.image.description="Receives signed invoice webhooks, stores each exactly once, runs handlers" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# The slim image comes without the bytecode of the standard library, which every start would compile anew.
RUN python -m compileall -q -j 0 -x '(site|dist)-packages' "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# By number, so that Kubernetes can see that it is not root; with a name, for programs that ask for one.
RUN groupadd --gid 10001 billhook \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/billhook --shell /usr/sbin/nologin billhook \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/billhook
COPY --from=builder /opt/billhook /opt/billhook
ENV PATH=/opt/billhook/bin:$PATH PYTHONDONTWRITEBYTECODE=1 \
    BILLHOOK_LISTEN=0.0.0.0:8000 BILLHOOK_STATE_DIR=/var/lib/billhook
# Where billhook.toml and handlers are looked for.
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# The receiver has to answer, worker and beat to do their work; other commands pass.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["python", "-c", "import os, sys; \
    from http.client import HTTPConnection; \
    command = open('/proc/1/cmdline').read().split('\\0'); \
    {'work', 'beat'}.isdisjoint(command) or os.execvp('billhook', ['billhook', 'alive']); \
    {'serve', 'up'}.isdisjoint(command) and sys.exit(); \
    host, _, port = os.environ['BILLHOOK_LISTEN'].rpartition(':'); \
    connection = HTTPConnection(host.strip('[]'), int(port), timeout=5); \
    connection.request('GET', '/livez'); \
    sys.exit(connection.getresponse().status != 200)"]
# In this form the program is process 1 itself and gets the signals.
ENTRYPOINT ["billhook"]
CMD ["serve"]
