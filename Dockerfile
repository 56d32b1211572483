# Image of the program: `docker build .`, then `docker run --rm IMAGE --help`. Arguments are those of shelftide.
#
#   ACCELERATOR  cpu or cuda: which base the image stands on. With cuda, run it with `--gpus all`.
#   EXTRA        a group of optional dependencies of pyproject.toml; none by default
#
# Packages come from pip's usual place, or from where a pip.conf says: `docker build --secret id=pip,src=pip.conf .`

ARG ACCELERATOR=cpu

FROM python:3.11.14-slim-bookworm AS cpu

FROM nvidia/cuda:12.8.1-base-ubuntu24.04 AS cuda
# A distribution keeps one version of these; what matters is pinned by the tag above.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# ---------------------------------------------------------------------------- packages, with what building them needs
FROM ${ACCELERATOR} AS build
ARG EXTRA=
WORKDIR /build
ENV PATH=/opt/shelftide/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/shelftide
# What the program needs changes seldom, so it is a layer of its own, kept while only the source changes.
COPY pyproject.toml constraints.txt ./
RUN python -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extra = project['optional-dependencies'][sys.argv[1]] if sys.argv[1] else []; \
        print(*project['dependencies'], *extra, sep='\n')" "$EXTRA" > requirements.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY models models
COPY online online
COPY streams streams
COPY shelftide shelftide
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --no-deps .

# ---------------------------------------------------------------------------- what runs
FROM ${ACCELERATOR}
RUN groupadd --gid 10001 shelftide \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/shelftide --shell /usr/sbin/nologin shelftide \
    && install --directory --owner 10001 --group 10001 --mode 0750 /var/lib/shelftide /var/lib/shelftide-models
COPY --from=build /opt/shelftide /opt/shelftide
# State of the program: XDG_STATE_HOME/shelftide. Bytecode is compiled already; the root may be read-only.
ENV PATH=/opt/shelftide/bin:$PATH XDG_STATE_HOME=/var/lib PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/shelftide
# A worker is healthy when it is ready: its shards are recovered. Recovery of much state takes a while.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9464/ready', timeout=3)"]
ENTRYPOINT ["shelftide"]
CMD ["worker"]
