# Two images:
#
#     docker build -t test:latest .               the echo environment's server, for
#                                                  `TestEnv.from_docker_image("test:latest")`
#     docker build -t prompt-lab --target lab .   the lab, for workers on several machines (docs/machines.md)
FROM python:3.11-slim AS lab

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

WORKDIR /lab
RUN useradd --uid 1000 --create-home play && chown play /lab

COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY lab/ lab/
RUN pip install --no-cache-dir -c constraints.txt -e '.[workers]'
COPY --chown=play experiments/ experiments/
COPY --chown=play prompts/ prompts/
COPY inference.py ./

USER 1000
CMD ["python", "-m", "lab.tune"]


# Only what the server imports is installed: 91 MB. OpenEnv's full set of dependencies is 427 MB, because
# it carries the gradio web interface, and starts three times slower. Without it `/web` leads to `/docs`.
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ENABLE_WEB_INTERFACE=false

RUN useradd --uid 1000 --create-home play

COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir -c /tmp/constraints.txt fastapi uvicorn websockets "fastmcp-slim[client]" \
 && pip install --no-cache-dir -c /tmp/constraints.txt --no-deps openenv

WORKDIR /app
COPY lab/environments/echo/ ./

USER 1000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=2)"]

# Port 8000 is where OpenEnv's LocalDockerProvider looks.
CMD ["python", "-m", "server.app", "--host", "0.0.0.0", "--port", "8000"]
