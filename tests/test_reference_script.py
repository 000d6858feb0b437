"""The evaluator's reference script plays this project's environment, unchanged.

The script is beside the checkout. It runs as a submission does: the package's folder on PYTHONPATH,
the server behind `from_docker_image`, an OpenAI endpoint at API_BASE_URL. A stand-in for the `docker`
command starts the real server, and a scripted endpoint gives known answers.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.echo_server import ROOT, without_gradio
from tests.fake_docker import PACKAGE, FakeDocker, fake_docker
from tests.fake_endpoint import Reply, fake_endpoint

REFERENCE = ROOT.parent / "shared" / "reference" / "inference.py"
RUN_TIMEOUT_S = 90.0
ANSWERS = ["a", "two words", "éü😀", "x" * 150, "the fifth message", "six", 'says "seven"', "x" * 1000]


def play_reference(docker: FakeDocker, api_base_url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the reference script as the evaluator does, in a separate folder."""
    settings = {
        "PATH": docker.path,
        "PYTHONPATH": f"{PACKAGE}{os.pathsep}{without_gradio(folder)}",
        "PYTHONIOENCODING": "utf-8",
        "NO_PROXY": "127.0.0.1,localhost",
        "API_BASE_URL": api_base_url,
        "MODEL_NAME": "stand-in",
        "HF_TOKEN": "not-a-key",
        "LOCAL_IMAGE_NAME": "test:latest",
        "TEST_TASK": "echo",
        "TEST_BENCHMARK": "test",
    }
    return subprocess.run(
        [sys.executable, REFERENCE],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        encoding="utf-8",
        timeout=RUN_TIMEOUT_S,
        check=False,
    )


@pytest.mark.skipif(
    not REFERENCE.is_file(),
    reason=f"NOT CHECKED: there is no reference script at {REFERENCE}; put shared/ beside the checkout",
)
def test_the_reference_script_plays_a_full_episode_unchanged(tmp_path: Path) -> None:
    answers = iter(ANSWERS)
    with fake_docker(tmp_path) as docker, fake_endpoint(lambda _: Reply(next(answers))) as endpoint:
        run = play_reference(docker, endpoint.url, tmp_path)
        left_over = docker.left_over()

    rewards = [len(answer) * 0.1 for answer in ANSWERS]
    steps = [
        f"[STEP] step={n} action={answer} reward={reward:.2f} done=false error=null"
        for n, (answer, reward) in enumerate(zip(ANSWERS, rewards, strict=True), start=1)
    ]
    score = min(sum(rewards) / 120, 1.0)
    end = f"[END] success=true steps=8 score={score:.3f} rewards={','.join(f'{r:.2f}' for r in rewards)}"
    assert run.stdout.split("\n") == ["[START] task=echo env=test model=stand-in", *steps, end, ""], (
        run.stderr
    )
    assert run.returncode == 0
    assert len(endpoint.requests) == 8
    assert left_over == []
