"""The echo environment's server: OpenEnv's HTTP and WebSocket routes over one app.

    python -m lab.environments.echo.server.app --port 8000
    uvicorn lab.environments.echo.server.app:app        (or `server.app:app` inside the package's folder)

It owns how many sessions run at once and how the process starts and stops; the routes are OpenEnv's.
"""

import argparse
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from openenv.core.env_server.http_server import create_app

if TYPE_CHECKING or __package__ != "server":
    from ..models import TestAction, TestObservation
    from .echo_environment import EchoEnvironment
else:  # OpenEnv serves `server.app:app` from inside the package's folder
    from models import TestAction, TestObservation
    from server.echo_environment import EchoEnvironment

MAX_SESSIONS = 256
STOP_TIMEOUT_S = 2  # how long a SIGTERM waits for sessions that are still open


app: FastAPI = create_app(
    EchoEnvironment, TestAction, TestObservation, env_name="echo", max_concurrent_envs=MAX_SESSIONS
)
if not any(getattr(route, "path", "").startswith("/web") for route in app.routes):  # no web interface
    app.add_api_route("/web", lambda: RedirectResponse("/docs"), include_in_schema=False)


def main() -> None:
    """Serve the environment until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Serve the echo environment.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    args = parser.parse_args()
    uvicorn.run(
        app, host=args.host, port=args.port, access_log=False, timeout_graceful_shutdown=STOP_TIMEOUT_S
    )


if __name__ == "__main__":
    main()
