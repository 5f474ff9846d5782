# One image for manager, worker and command line. Builder and final stage start from the same Python, so
# that the environment made in the one finds its interpreter in the other.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# PIP_PYTHON lets the system's pip fill an environment that has none of its own.
RUN python -m venv --without-pip /opt/svc
ENV PIP_PYTHON=/opt/svc/bin/python
# A package index of your own: docker build --secret id=pip.conf,src=… (nothing of it stays in the image).
RUN --mount=type=bind,source=requirements.lock,target=requirements.lock \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY service ./service
RUN pip install --quiet --no-cache-dir --no-deps --no-build-isolation . && pip uninstall --quiet --yes setuptools
# A checkout made under a strict umask must be readable for the image's user too.
COPY examples /app/examples
RUN chmod -R go+rX /app/examples

FROM ${PYTHON_IMAGE}
# These folders are owned by the user: an empty volume mounted there takes that over.
RUN groupadd --gid 10001 svc \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /app --shell /usr/sbin/nologin svc \
 && install -d -m 0700 -o 10001 -g 10001 /run/secrets /run/svc /var/lib/svc /var/lib/svc-marker \
    /run/keys/authority /run/keys/manager /run/keys/worker /run/keys/cli /run/keys/nats \
    /var/lib/nats/1 /var/lib/nats/2 /var/lib/nats/3 \
 && install -d /app/tasks
COPY --from=builder /opt/svc /opt/svc
COPY --from=builder /app/examples /app/examples
COPY --chmod=0755 deploy/keys.sh /opt/svc/bin/svc-keys
# PIP_PYTHON: a `pip install` in an image built on this one goes where the tasks will run.
ENV PATH=/opt/svc/bin:$PATH \
    PIP_PYTHON=/opt/svc/bin/python \
    PYTHONPATH=/app/tasks:/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1
WORKDIR /app
USER 10001:10001
EXPOSE 7077 9100 9101
STOPSIGNAL SIGTERM
ENTRYPOINT ["svc"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 CMD ["svc", "health"]
# Last, so that a new revision builds no layer again.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="svc" \
      org.opencontainers.image.description="Python's own multiprocessing queue as a durable service" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
