# Two stages: the first has pip and the build back-end, the second only what runs.
# Pin by digest where your policy asks for it: --build-arg PYTHON=python:3.11.14-slim-bookworm@sha256:…
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/ambassador && python -m venv /opt/build
# Wheels only, each with its hash: no code of a dependency runs while the image is built.
COPY requirements.lock requirements-build.lock ./
RUN /opt/ambassador/bin/pip install --require-hashes --only-binary :all: -r requirements.lock
RUN /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements-build.lock
COPY pyproject.toml README.md ./
COPY ambassador ./ambassador
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/ambassador/bin/pip install --no-deps --no-index --find-links /wheels ambassador \
 && /opt/ambassador/bin/pip uninstall --yes pip setuptools \
 && /opt/ambassador/bin/python -m compileall -q /opt/ambassador/lib

FROM ${PYTHON}
# 65532 is `nonroot` in the usual minimal images; certificates are handed to this uid (`certs dev --owner 65532:65532`).
RUN groupadd --gid 65532 ambassador \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ambassador \
 && mkdir -p /etc/ambassador /certs
COPY --from=build /opt/ambassador /opt/ambassador
# Bytecode is compiled above, so nothing is written: works with a read-only root file system.
ENV PATH=/opt/ambassador/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /etc/ambassador
USER 65532:65532
# No EXPOSE and no HEALTHCHECK: ports are the configuration's, probes the orchestrator's.
STOPSIGNAL SIGTERM
ENTRYPOINT ["ambassador"]
CMD ["run"]
