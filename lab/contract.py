"""The public names for the escaping in START, STEP and END lines: `lab.contract.unescape`.

The lines and their escaping are `lab.submission.contract`'s.
"""

from lab.submission.contract import escape, unescape

__all__ = ["escape", "unescape"]
