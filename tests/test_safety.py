"""Keys reach only their endpoint, and no text of a model is active: all files are searched."""

import re
from contextlib import suppress
from pathlib import Path

from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_resume import EXPERIMENT

KEY, PROPOSER_KEY, PASSWORD = "sk-canary-4f1b9c", "sk-canary-77aa02", "canary-password-31"
ESCAPE = "\x1b]0;owned\x07\x1b[31m"
SECRETS = [KEY.encode(), PROPOSER_KEY.encode(), PASSWORD.encode()]


def leaks(folder: Path) -> list[str]:
    """The files below `folder` that contain a secret, except the one that defines it."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".env"]
    assert len(files) >= 20
    return [str(path) for path in files if any(secret in path.read_bytes() for secret in SECRETS)]


def test_a_bad_endpoint_gets_neither_keys_nor_escapes_into_any_file(tmp_path: Path) -> None:
    """The endpoint repeats the key in its errors, and its answers contain terminal escapes."""
    project = Project.make(tmp_path / "project", tracked=True)
    proposals = '[proposals]\nproposer = "gepa"\ntexts = 2\n\n[confirmation]'
    project.write("experiments/known.toml", EXPERIMENT.replace("[confirmation]", proposals))
    asked, processes = 0, set[bytes]()

    def script(body: Body) -> Reply:
        nonlocal asked
        asked += 1
        for path in Path("/proc").glob("[0-9]*/cmdline"):  # none on macOS
            with suppress(OSError):  # it has ended just now
                processes.add(path.read_bytes())
        told = f"Incorrect API key: Bearer {PROPOSER_KEY if body['model'] == 'big' else KEY}"
        text = f"{ESCAPE}<script>alert(1)</script>" + "x" * (100 + asked % 40)
        return Reply(status=500, message=told + ESCAPE) if asked % 5 == 0 else Reply(text)

    with fake_endpoint(script) as endpoint:
        with_password = endpoint.url.replace("http://", f"http://user:{PASSWORD}@")
        keys = f"HF_TOKEN={KEY}\nPROPOSER_API_KEY={PROPOSER_KEY}\nPROPOSER_MODEL_NAME=big\n"
        project.write(".env", f"API_BASE_URL={with_password}\n{keys}")
        settings = {"MODEL_NAME": "fake"}
        tuned = project.afresh.run("-m", "lab.tune", "experiments/known.toml", **settings)
        played = project.run("inference.py", **settings)
    assert tuned.returncode == 0, tuned.stderr
    assert played.returncode == 0, played.stderr
    assert "Failed attempts" in tuned.stdout
    printed = "".join([tuned.stdout, tuned.stderr, played.stdout, played.stderr]).encode()
    assert not any(secret in printed for secret in SECRETS)
    assert not any(secret in process for secret in SECRETS for process in processes)
    assert leaks(project.folder) == []
    assert ESCAPE.encode() not in printed
    artifacts = [path for path in project.folder.glob("mlruns/**/*") if path.is_file()]
    assert {"prompt.txt", "episodes.json", "best.toml"} <= {path.name for path in artifacts}
    assert not any(b"\x1b" in path.read_bytes() for path in artifacts)


def test_a_wrong_key_that_the_endpoint_repeats_is_not_printed(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    project.write("experiments/known.toml", EXPERIMENT)
    with fake_endpoint(lambda _: Reply(status=401, message=f"no such key: {KEY}")) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": KEY}
        done = project.run("-m", "lab.tune", "experiments/known.toml", **settings)
    assert done.returncode == 3
    assert "no such key: [key]" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert leaks(project.folder) == []


def test_a_password_in_a_url_is_in_no_error_and_in_no_experiment_file(tmp_path: Path) -> None:
    """Libraries put the whole URL into their errors."""
    project = Project.make(tmp_path / "project", tracked=True)
    project.write("experiments/known.toml", EXPERIMENT)
    with fake_endpoint() as server:  # it has no schema of an environment
        url = server.url.replace("http://", f"http://user:{PASSWORD}@") + f"?token={KEY}"
        for settings in (
            {"ENV_BASE_URL": url},
            {"ENV_BASE_URL": f"ws://user:{PASSWORD}@127.0.0.1:9"},
            {"API_BASE_URL": f"http://user:{PASSWORD}@127.0.0.1:9/v1"},
            {"MLFLOW_TRACKING_URI": url},
        ):
            known = {"API_BASE_URL": server.url, "MODEL_NAME": "fake", **settings}
            for command in ("lab.doctor", "lab.tune"):
                done = project.run("-m", command, "experiments/known.toml", **known)
                assert PASSWORD not in done.stdout + done.stderr, (command, settings)
                assert KEY not in done.stdout + done.stderr, (command, settings)
    assert leaks(project.folder) == []
    for name, endpoint in (("model.endpoint", "API_BASE_URL"), ("environment.url", "ENV_BASE_URL")):
        bad = f"https://user:{PASSWORD}@host.invalid/v1"
        text = EXPERIMENT.replace('endpoint = "embedded"', f'endpoint = "{bad}"')
        if name == "environment.url":
            text = re.sub(r"(\[environment\]\n)[^[]*", rf'\g<1>url = "{bad}"\n\n', EXPERIMENT)
        project.write("experiments/known.toml", text)
        done = project.run("-m", "lab.tune", "experiments/known.toml", MODEL_NAME="fake")
        assert done.returncode == 2
        assert name in done.stderr
        assert endpoint in done.stderr
        assert PASSWORD not in done.stderr
