"""The tensor types that the runtime reads, and the one in which it gets each tensor.

It leaves the conversion to `conversion`, which needs numpy.
"""

from importlib.util import find_spec
from pathlib import Path

from lab.errors import LocalModelError
from lab.local_model.gguf_file import TYPES, Header, Tensor

_F32, _F16, _Q4_0, _Q4_1, _Q8_0, _Q4_K, _Q6_K, _BF16 = 0, 1, 2, 3, 8, 12, 14, 30
_READ = (_F16, _Q4_0, _Q4_1, _Q8_0, _Q4_K, _Q6_K)
"""Types of matrices that openvino-genai 2026.4 reads, of Q4_1 and Q4_K with rounded offsets."""


def needs_conversion(header: Header) -> bool:
    """Whether the runtime cannot read a tensor as it is."""
    return any(target_of(tensor) != tensor.type for tensor in header.tensors)


def check_converter(path: Path, header: Header) -> None:
    """Check that the package that converts is installed.

    Raises:
        LocalModelError: It is not.
    """
    if find_spec("gguf") is None:
        kinds = sorted({TYPES[one.type].name for one in header.tensors if target_of(one) != one.type})
        raise LocalModelError(
            "The model file must be converted, and the converter is not installed",
            where=str(path),
            why=f"the runtime cannot read tensors of type {', '.join(kinds)}; no Python package gguf",
            do="pip install 'prompt-lab[gguf]', or use the same model in Q8_0",
        )


def target_of(tensor: Tensor) -> int:
    """The type in which the runtime gets a tensor."""
    if len(tensor.dimensions) == 1:
        return _F32
    if tensor.type in _READ:
        return tensor.type
    return _F16 if tensor.type in (_F32, _BF16) else _Q8_0
