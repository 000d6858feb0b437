"""An answer: the JSON object in a model's text, which may be malformed or fenced."""

import json
from typing import Any

Values = dict[str, Any]
"""An action's fields, as the environment accepts them."""

_DEEPEST = 100
"""Maximum nesting of an action: deeper JSON cannot always be validated or sent."""

_LONGEST_REPAIR, _MOST_BRACES = 20_000, 200
"""Maximum length and opening braces of a malformed answer: a longer one takes minutes to repair."""


def json_object(text: str) -> Values:
    """The last JSON object in `text`, which may be malformed, fenced, or surrounded by other text."""
    import json_repair

    if "{" not in text:
        raise ValueError("there is no JSON object in it")
    is_repairable = len(text) <= _LONGEST_REPAIR and text.count("{") <= _MOST_BRACES
    try:
        found = _whole_object(text) or (json_repair.loads(text) if is_repairable else None)
    except Exception as error:  # RecursionError, or anything else that the repair raises
        raise ValueError(f"its JSON cannot be read: {type(error).__name__}") from error
    if found is None and not is_repairable:
        raise ValueError("its JSON is broken, and too long to be repaired")
    if isinstance(found, list):
        found = next((one for one in reversed(found) if isinstance(one, dict)), None)
    if not isinstance(found, dict):
        raise ValueError("there is no JSON object in it")
    return clean(found)


def _whole_object(text: str) -> Values | None:
    """The last JSON object in `text`, if all are well-formed: those are read without repair."""
    found, at = None, text.find("{")
    while at >= 0:
        try:
            found, end = json.JSONDecoder().raw_decode(text, at)
        except json.JSONDecodeError:
            return None
        at = text.find("{", end)
    return found


def clean(found: dict[Any, Any]) -> Values:
    """The values as plain JSON, without NaN and lone surrogates, which could be neither sent nor written."""
    if _is_deep(found, _DEEPEST):
        raise ValueError(f"its JSON is nested more than {_DEEPEST} levels deep")
    try:
        text = json.dumps(found, ensure_ascii=False, allow_nan=False)
        # Through UTF-16, which joins two surrogates that the repair left apart into one character.
        cleaned: Values = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"it is not valid JSON: {error}") from error
    return cleaned


def _is_deep(value: object, levels: int) -> bool:
    """Whether a JSON value is nested deeper than `levels`."""
    if not isinstance(value, dict | list | tuple):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(one, levels - 1) for one in inner)
