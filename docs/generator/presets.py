"""The page on presets."""

from __future__ import annotations

from typing import get_args

from frontrunner.configs import presets
from frontrunner.configs.presets import Kind

_WHERE: dict[Kind, str] = {
    "machine": "`machine: NAME` in a run file, or `extends: NAME` in a machine file.",
    "model": "`model: NAME` in a run file. A Hugging Face `config.json` of the families gpt2, "
    "gpt_neox, llama, mistral, qwen2, qwen3 or olmo2 works too.",
    "run": "`extends: NAME` in a run file, or in place of a run file on the command line.",
    "sweep": "In place of a sweep file on the command line.",
}


def page() -> str:
    lines = [
        "# Presets\n",
        "Each figure in a preset names its source and date, or is marked as assumed.\n",
    ]
    for kind in get_args(Kind):
        lines += [f"## {kind.capitalize()}s\n", f"{_WHERE[kind]}\n"]
        for name in presets.names(kind):
            lines.append(f"- `{name}`{_comment(kind, name)}")
        lines.append("")
    return "\n".join(lines)


def _comment(kind: Kind, name: str) -> str:
    """What the file's own first comment says."""
    path = presets.path(kind, name)
    assert path is not None
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    text = " ".join(comment)
    return f": {text}" if text else ""
