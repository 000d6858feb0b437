"""GGUF files that people have: which are converted, refused, and served under the file's name."""

import hashlib
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, quants
from openai import OpenAI

from lab.errors import ConfigError, LocalModelError
from lab.llm.settings import ModelChoice, choose_model
from lab.local_model import conversion, weights
from lab.local_model.child import LocalModelProcess
from lab.local_model.gguf_file import read_header
from lab.local_model.weights import PATH_VARIABLE, find_model

WIDTH, HEADS, PAIRS = 64, 4, 2
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>"


def byte_tokens() -> list[str]:
    """The texts of the 256 bytes in a byte-level vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(256)]


def build(
    path: Path,
    kind: Type = Type.Q5_0,
    *,
    architecture: str = "qwen2",
    tokenizer: str = "gpt2",
    template: str = TEMPLATE,
) -> Path:
    """A tiny chat model of one layer with seeded weights, its matrices in the type `kind`."""
    random, writer = np.random.default_rng(1), GGUFWriter(path, architecture)
    tokens = [*byte_tokens(), "<|endoftext|>", "<|im_start|>", "<|im_end|>", "ab", "<|a|>", "<|b|>"]
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(PAIRS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(8)
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 3, 3, 1, 3, 3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(258)
    writer.add_chat_template(template)

    def matrix(name: str, rows: int) -> None:
        values = random.normal(0, 0.1, (rows, WIDTH)).astype(np.float32)
        writer.add_tensor(f"{name}.weight", quants.quantize(values, kind), raw_dtype=kind)

    def vector(name: str, length: int) -> None:
        writer.add_tensor(name, random.normal(1, 0.1, length).astype(np.float32))

    matrix("token_embd", len(tokens))
    vector("output_norm.weight", WIDTH)
    for name in ("attn_norm", "ffn_norm"):
        vector(f"blk.0.{name}.weight", WIDTH)
    pair_width = WIDTH // HEADS * PAIRS
    for name, rows in (("attn_q", WIDTH), ("attn_k", pair_width), ("attn_v", pair_width)):
        matrix(f"blk.0.{name}", rows)
        vector(f"blk.0.{name}.bias", rows)
    for name in ("attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        matrix(f"blk.0.{name}", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def values(reader: GGUFReader) -> dict[str, np.ndarray]:
    return {one.name: quants.dequantize(one.data, one.tensor_type) for one in reader.tensors}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/prompt-lab/models"


@pytest.mark.parametrize("kind", [Type.Q5_0, Type.BF16])
def test_a_conversion_keeps_values_and_metadata(tmp_path: Path, cache: Path, kind: Type) -> None:
    original = build(tmp_path / "tiny.gguf", kind)
    made = conversion.converted(original, read_header(original), lambda _: None)
    assert made.parent == cache
    before, after = GGUFReader(original), GGUFReader(made)
    told = {key: field.contents() for key, field in before.fields.items()}
    assert {key: field.contents() for key, field in after.fields.items()} == {**told, "general.file_type": 7}
    assert {one.tensor_type for one in after.tensors} == {
        Type.F32,
        Type.F16 if kind == Type.BF16 else Type.Q8_0,
    }
    was, now = values(before), values(after)
    assert was.keys() == now.keys()
    # Q8_0 has 127 steps to a block's largest value, and rounds to half a step.
    assert all(np.abs(was[name] - now[name]).max() <= np.abs(was[name]).max() / 127 for name in was)


def test_two_processes_convert_once_and_a_damaged_conversion_is_made_again(
    tmp_path: Path, cache: Path
) -> None:
    original = build(tmp_path / "tiny.gguf")
    program = (
        "from pathlib import Path; from lab.local_model.conversion import converted\n"
        "from lab.local_model.gguf_file import read_header\n"
        f"path = Path({str(original)!r}); converted(path, read_header(path), print)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = "".join(process.communicate()[0] for process in both)
    assert said.count("converting tiny.gguf once") == 1
    (made,) = cache.glob("*.gguf")
    assert made.stem == hashlib.sha256(original.read_bytes()).hexdigest()
    whole = made.read_bytes()
    for damaged in (whole[:-100], whole[:5000] + b"?" + whole[5001:], b""):
        made.write_bytes(damaged)
        assert conversion.converted(original, read_header(original), lambda _: None) == made
        assert made.read_bytes() == whole
    assert not list(cache.glob("*.part"))


def test_too_little_disk_is_reported_before_anything_is_written(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(1000))
    original = build(tmp_path / "tiny.gguf")
    with pytest.raises(LocalModelError, match="of disk, and 0 MB are free"):
        conversion.converted(original, read_header(original), lambda _: None)
    assert not [*cache.glob("*.gguf"), *cache.glob("*.part")]


def garbled(path: Path) -> Path:
    path.write_bytes(b"no weights")
    return path


def cut(path: Path, length: int) -> Path:
    path.write_bytes(build(path).read_bytes()[:length])
    return path


FAULTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no file": (lambda path: path, "no such file"),
    "a folder": (lambda path: path.parent, "it is a folder"),
    "another name": (lambda path: garbled(path.with_suffix(".bin")), "does not end in .gguf"),
    "no GGUF": (garbled, r"it begins with b'no w', not b'GGUF'"),
    "cut in the header": (lambda path: cut(path, 3000), "its header is cut off"),
    "cut in the tensors": (lambda path: cut(path, 30000), "it is cut off: 30,000 bytes of"),
    "another architecture": (lambda path: build(path, architecture="gemma3"), "this is gemma3"),
    "another tokenizer": (lambda path: build(path, tokenizer="llama"), "this is llama"),
    "no chat template": (lambda path: build(path, template=""), "it has no chat template"),
}


@pytest.mark.parametrize(("made", "why"), FAULTS.values(), ids=FAULTS.keys())
def test_a_file_that_cannot_be_played_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[Path], Path], why: str
) -> None:
    path = made(tmp_path / "model.gguf")
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    with pytest.raises(LocalModelError, match=why) as failed:
        LocalModelProcess.launch()
    assert failed.value.where == str(path)
    assert failed.value.do


def test_a_missing_converter_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda _: None)
    with pytest.raises(LocalModelError, match=r"of type Q5_0; no Python package gguf\n.*prompt-lab\[gguf\]"):
        find_model({PATH_VARIABLE: str(build(tmp_path / "tiny.gguf"))})


def test_a_converted_file_is_served_under_its_own_name(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(build(tmp_path / "my tiny-q5_0.gguf")))
    chosen = choose_model(ModelChoice("embedded", "SmolLM2-135M-Instruct"))
    assert chosen.name == "my-tiny-q5_0"
    with LocalModelProcess.launch() as process, OpenAI(base_url=process.base_url, api_key="none") as client:
        answer = client.chat.completions.create(
            model=chosen.name, messages=[{"role": "user", "content": "Hello"}], max_tokens=5
        )
        assert [model.id for model in client.models.list()] == [answer.model] == [chosen.name]
    assert answer.usage is not None
    assert answer.usage.completion_tokens in range(1, 6)
    assert "converting my tiny-q5_0.gguf once" in capfd.readouterr().err
    assert list(cache.glob("*.gguf"))


def test_a_name_without_its_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"set {PATH_VARIABLE} to its .gguf file"):
        choose_model(ModelChoice("embedded", "my-tiny-q5_0"), {})
