"""Values that must not be kept: passwords, tokens and keys."""

from __future__ import annotations

import re

_WORDS = {"TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "CREDENTIALS", "APIKEY"}
_KEYS = ("API_KEY", "ACCESS_KEY", "PRIVATE_KEY", "SECRET_KEY")
#: The user and password of an address; pathlib makes one slash of two.
_IN_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]*:/{1,2}[^/\s:@]*):[^/\s@]+@", re.IGNORECASE)


def holds_secret(name: str, value: str) -> bool:
    """Whether an environment variable is a secret, by its name or by a password in an address."""
    upper = name.upper()
    named = not _WORDS.isdisjoint(upper.split("_")) or upper.endswith(_KEYS)
    return bool(value) and (named or _IN_ADDRESS.search(value) is not None)


def masked(text: str) -> str:
    """The text without the passwords of addresses: ``https://user:***@host``."""
    return _IN_ADDRESS.sub(r"\1:***@", text)
