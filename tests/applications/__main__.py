"""Serves all applications, each at its name."""

import argparse

import uvicorn
from fastapi import FastAPI

from tests.applications import envelopes, forms, paths, refusals, tasks

main = FastAPI()


@main.get("/health")
def health() -> dict[str, str]:
    return {"status": "healthy"}


for kind in (forms, tasks, paths, refusals, envelopes):
    for name, application in kind.APPLICATIONS.items():
        main.mount(f"/{name}", application)

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
uvicorn.run(main, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
