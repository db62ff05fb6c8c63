"""Text from logs and records, made harmless for the page."""

from __future__ import annotations

import html
import json
import re
from typing import Any

#: Control characters (terminal sequences begin with one), marks that reorder text, and lone surrogates, which
#: stand for bytes of a file name that are no UTF-8.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def plain(text: object) -> str:
    """The text with a replacement character for each one that would act instead of being seen."""
    return _UNSEEN.sub("\ufffd", str(text))


def escape(text: object) -> str:
    """Text for HTML, and for attributes in double quotes."""
    return html.escape(plain(text), quote=True)


def script_json(value: Any) -> str:
    """JSON with ``<`` and ``&`` escaped, so that no text in it can close the script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026")
