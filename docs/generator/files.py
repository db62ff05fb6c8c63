"""The pages on run, machine and sweep files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from frontrunner.configs.schema import MachineSpec, RunSpec
from frontrunner.configs.sweep import SweepSpec
from generator.keys import Key, keys

_RUN = """\
# Run file

A run file says all of one run: model, machine and layout. Every key has a default but `model`, `machine` and
`data`. An unknown key is an error that names the nearest known one.

- `extends: NAME` takes all keys of a preset or of another file first; the keys of this file win.
- `model`, `machine` and `layout.sharding` take a name in place of the section: `machine: frontier`.
- `-o KEY=VALUE` changes a key on the command line, by the dotted path that stands here.
- `frontrunner schema > run.schema.json` prints the same keys as a JSON schema. With the line
  `# yaml-language-server: $schema=run.schema.json` at the top of a run file, editors complete and check it.

The keys below `machine` have [a page of their own](machine-file.md).
"""
_MACHINE = """\
# Machine file

A machine file says what a machine is made of, how fast its links are, and what its site needs. It is the
only file to write for a new machine: [Add a machine](../how-to/add-a-machine.md) goes through it in steps.

| you want | you need |
|---|---|
| `check`, `train`, memory in `plan` | numbers of nodes, packages and devices; `device`; `links` |
| MFU | `device.peak_flops_per_s` |
| step times in `plan` and `search` | a year in `software` |
| `checkpoint.every_minutes: auto` | `reliability` |
| bound ranks, queue limits and modules in jobs | `site` |

`extends: NAME` takes all keys of another machine first. In a run file the keys stand below `machine`.
"""
_SWEEP = """\
# Sweep file

A sweep file names a base run and the keys to vary. `base` and `space` are required.

The keys of `space` are the dotted keys of [a run file](run-file.md), and `grad_accum_steps`, from which the
global batch size follows. A key's values are a list, or `{from: 1, to: 8, step: 1}`, or
`{choices: [...], when: {...}}`. `name` and `training.steps` cannot vary: trials set them.
"""


def run_file() -> str:
    found = keys(RunSpec)
    return _page(_RUN, [replace(key, below=()) if key.path == "machine" else key for key in found])


def machine_file() -> str:
    return _page(_MACHINE, keys(MachineSpec))


def sweep_file() -> str:
    return _page(_SWEEP, keys(SweepSpec))


def _page(head: str, found: Iterable[Key]) -> str:
    """The keys without sections first, then a heading for each section, at any depth."""
    own = list(found)
    return "\n".join([head, "## Top level\n", *_list(own), *(line for key in own for line in _sections(key))])


def _sections(key: Key) -> list[str]:
    if not key.below:
        return []
    lines = [f"## `{key.path}` {{ #{_anchor(key.path)} }}\n", f"{key.description}\n", *_list(key.below)]
    return [*lines, *(line for below in key.below for line in _sections(below))]


def _list(found: Iterable[Key]) -> list[str]:
    return [line for key in found for line in entry(key)]


def entry(key: Key) -> list[str]:
    """A key as one entry of a definition list."""
    about = [key.type.replace("section", f"[section](#{_anchor(key.path)})") if key.below else key.type]
    about += [key.unit] if key.unit else []
    about += ["required" if key.default == "required" else f"default {key.default}"] if key.default else []
    anchor = "" if key.below else f'<a id="{_anchor(key.path)}"></a>'
    return [
        f'{anchor}`{key.path}` <span class="about">{" · ".join(about)}</span>',
        f":   {key.description or '-'}\n",
    ]


def _anchor(path: str) -> str:
    return path.replace("[]", "")
