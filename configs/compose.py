"""Composes files and overrides into one tree: ``extends``, presets, ``-o key=value``.

Mappings are merged key by key, and later values win; anything else is replaced. There are three special
cases: in ``model`` and ``machine`` a name merged with a mapping becomes that preset's mapping
(``extends``), and in ``layout.sharding`` a preset replaces degrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from frontrunner.configs import foreign, huggingface, presets
from frontrunner.configs.errors import Violation
from frontrunner.configs.plain_files import why_missing
from frontrunner.configs.presets import Kind
from frontrunner.configs.sharding import SHARDING_PRESETS, Preset
from frontrunner.configs.yaml_tree import DEEPEST_TREE, Node, Scalar, Source, read_file, read_text, show_path

COMMAND_LINE = "command line"
COMPONENTS: tuple[Kind, ...] = ("model", "machine")
SHARDING = "layout.sharding"
DEGREES = ("weights", "gradients", "optimizer")
CONFIG = "config.json"
#: The two ways to give the length of a run.
_LENGTHS = {"steps": "tokens", "tokens": "steps"}


def compose(path_or_preset: str, overrides: Sequence[str], problems: list[Violation]) -> Node | None:
    """The whole tree of a run, presets expanded; None if its own file cannot be read.

    Problems are appended to ``problems``; parts that could not be expanded stay as written.
    """
    given = Node(path_or_preset, Source(COMMAND_LINE, Path()))
    path = find("run", given, "", problems)
    tree = _run_file(path, problems, ()) if path else None
    if tree is None or path is None:
        return None
    return _complete(tree, path.stem, overrides, problems)


def compose_keys(
    keys: Mapping[str, Any], folder: Path, name: str, overrides: Sequence[str], problems: list[Violation]
) -> Node:
    """The tree of a run file with these keys, as if it were NAME.yaml in ``folder``."""
    tree = _over_parent(_planted(keys, Source(COMMAND_LINE, folder)), (), problems)
    return _complete(tree, name, overrides, problems)


def _planted(value: Any, source: Source) -> Node:
    """Plain data as a tree."""
    if isinstance(value, dict):
        return Node({key: _planted(child, source) for key, child in value.items()}, source)
    return Node([_planted(child, source) for child in value] if isinstance(value, list) else value, source)


def _complete(tree: Node, name: str, overrides: Sequence[str], problems: list[Violation]) -> Node:
    """A run file's tree with overrides, a name, and presets expanded."""
    for override in overrides:
        patch = _override(override, problems)
        tree = _merge(tree, patch, "") if patch else tree
    _check_length(tree, problems)
    entries = dict(tree.entries)
    entries.setdefault("name", tree.moved(name))
    for kind in COMPONENTS:
        if kind in entries:
            entries[kind] = _expand(kind, entries[kind], tree, problems, ())
    tree = tree.moved(entries)
    sharding = tree.at(SHARDING)
    return _replace(tree, SHARDING, _expand_sharding(sharding, problems)) if sharding else tree


def vary(tree: Node, values: Mapping[str, Scalar], problems: list[Violation]) -> Node:
    """A composed tree with other values at dotted keys, as ``-o`` would have set them."""
    source = Source(COMMAND_LINE, Path())
    for key, value in values.items():
        patch = Node(value, source)
        for part in reversed(key.split(".")):
            patch = Node({part: patch}, source)
        tree = _merge(tree, patch, "")
    touched = [kind for kind in COMPONENTS if any(key.partition(".")[0] == kind for key in values)]
    expanded: dict[str, Node] = {
        str(kind): _expand(kind, tree.entries[kind], tree, problems, ()) for kind in touched
    }
    tree = tree.moved({**tree.entries, **expanded})
    sharding = tree.at(SHARDING)
    return _replace(tree, SHARDING, _expand_sharding(sharding, problems)) if sharding else tree


def _run_file(path: Path, problems: list[Violation], below: tuple[Path, ...]) -> Node | None:
    """A run file merged over the readable files that it extends; None if it is unreadable itself."""
    tree = _mapping_file("run", path, problems, "extends" if below else "")
    return _over_parent(tree, (*below, path.resolve()), problems) if tree else None


def _over_parent(tree: Node, below: tuple[Path, ...], problems: list[Violation]) -> Node:
    """A tree over the run file that it extends, if any."""
    if "extends" not in tree.entries:
        return tree
    parent = _follow("run", tree.entries["extends"], below, "extends", problems)
    base = _run_file(parent, problems, below) if parent else None
    own = tree.moved({key: node for key, node in tree.entries.items() if key != "extends"})
    return _merge(base, own, "") if base else own


def _mapping_file(kind: Kind, path: Path, problems: list[Violation], key: str) -> Node | None:
    is_preset = presets.path(kind, path.stem) == path
    other = None if is_preset else foreign.instead(path, kind, show_path(path))
    if other is not None:
        problems.append(replace(other, path=key))
        return None
    tree = read_file(path, problems, key)
    if tree is None or isinstance(tree.value, dict):
        return tree
    what = "is empty" if tree.value is None else "must be a mapping"
    problems.append(tree.violation(key, what, "write key: value lines, for example `machine: frontier`"))
    return None


def _follow(
    kind: Kind, name: Node, below: tuple[Path, ...], key: str, problems: list[Violation]
) -> Path | None:
    """The file that ``extends`` names; it must not extend itself through others."""
    path = find(kind, name, key, problems)
    if path and path.resolve() in below:
        problems.append(name.violation(key, "the files extend each other in a cycle", "remove an `extends`"))
        return None
    return path


def find(kind: Kind, name: Node, key: str, problems: list[Violation]) -> Path | None:
    """The file of a preset or path; a path is relative to the file that contains it."""
    if not isinstance(name.value, str) or not name.value:
        what = f"must be the name of a {kind} preset or a path"
        problems.append(name.violation(key, what, f"write one of: {', '.join(presets.names(kind))}"))
        return None
    known = presets.path(kind, name.value)
    if known:
        return known
    path = name.source.folder / name.value
    is_path = "/" in name.value or path.suffix in (".yaml", ".yml", ".json")
    try:
        if kind == "model" and path.is_dir():
            if (path / CONFIG).is_file():
                return path / CONFIG
            fix = "name a folder that holds one, or a model file"
            problems.append(name.violation(key, f"is a folder without a {CONFIG}", fix))
            return None
        if is_path or path.exists():
            path.stat()
            return path
        what = f"is neither a {kind} preset nor a file"
        if path.is_symlink():
            path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        missing = why_missing(path, error)
        is_path = is_path or missing.startswith("is a link")
        what = missing if is_path else f"is neither a {kind} preset nor a file"
    problems.append(name.violation(key, *_unknown(kind, name.value, what, is_path)))
    return None


def _unknown(kind: Kind, word: str, what: str, is_path: bool) -> tuple[str, str]:
    """What is wrong with a name that leads to no file, ``what`` if nothing is nearer, and a fix."""
    fix = presets.suggest(Path(word).stem, presets.names(kind))
    if meant := presets.meant(word):
        other, same = meant
        known_as = "" if same == word else f", {same}"
        if other != kind and not is_path:
            what = f"is a {other} preset{known_as}, not a {kind}"
        fix = f"did you mean {same}?" if other == kind else _instead(kind, other, same)
    elif not is_path and fix.startswith("use one of") and (near := presets.near(word)):
        fix = f"did you mean the {near[0]} preset {near[1]}?"
    return what, f"check the path; {fix}" if is_path else fix


def _instead(kind: Kind, other: Kind, name: str) -> str:
    """What to do with the preset of another kind."""
    if kind == "run" and other == "model":
        return f"write `model: {name}` in a run file, or plan it with `frontrunner search {name}`"
    if kind == "run" and other == "machine":
        beside = [run for run in presets.names("run") if name.startswith(run.rpartition("-")[2])]
        fix = f"write `machine: {name}` in a run file"
        return f"{fix}, or use one that has it: {', '.join(beside)}" if beside else fix
    if kind == "run" and other == "sweep":
        return f"start it with `frontrunner sweep run {name}`"
    if kind == "sweep" and other == "run":
        return f"write `base: {name}` in a sweep file"
    return f"use one of: {', '.join(presets.names(kind))}"


def _override(text: str, problems: list[Violation]) -> Node | None:
    """``layout.tensor=4`` as a tree with one branch."""
    source = Source(COMMAND_LINE, Path())
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    wrong = None
    if not equals or not all(parts) or len(parts) > DEEPEST_TREE:
        wrong = Violation(
            "", text, "an override must be key=value", "write it like -o layout.tensor=4", COMMAND_LINE
        )
    elif parts[0] == "extends":
        wrong = Violation(
            key, value, "cannot be an override", "name that run file or preset instead", COMMAND_LINE
        )
    if wrong:
        problems.append(wrong)
        return None
    node = read_text(value, source, problems, ".".join(parts), lines=False)
    for part in reversed(parts):
        node = Node({part: node}, source) if node else None
    return node


def _merge(base: Node, top: Node, path: str) -> Node:
    """``top`` over ``base``."""
    if path == SHARDING:
        base, top = _sharding_mapping(base), _sharding_mapping(top)
        if "preset" in top.entries:
            return top
        if any(degree in top.entries for degree in DEGREES):
            base = _degrees_only(base)
    if path == "training":
        base = _without_other_length(base, top)
    if path in COMPONENTS and "extends" in top.entries:
        return top
    if path in COMPONENTS and isinstance(base.value, str):
        base = base.moved({"extends": base})
    if not isinstance(base.value, dict) or not isinstance(top.value, dict):
        return top
    entries = dict(base.value)
    for key, node in top.value.items():
        below = f"{path}.{key}" if path else key
        entries[key] = _merge(entries[key], node, below) if key in entries else node
    place = base if top.source.shown == COMMAND_LINE else top  # an override sets values, not sections
    return place.moved(entries)


def _without_other_length(base: Node, top: Node) -> Node:
    """``base`` without its steps if ``top`` gives tokens, or the reverse: the nearest to the user decides."""
    given = {key for key, node in top.entries.items() if node.value is not None}
    replaced = {other for key, other in _LENGTHS.items() if key in given} & base.entries.keys()
    if not replaced:
        return base
    return base.moved({key: node for key, node in base.entries.items() if key not in replaced})


def _check_length(tree: Node, problems: list[Violation]) -> None:
    steps, tokens = tree.at("training.steps"), tree.at("training.tokens")
    if steps and tokens and tokens.value is not None:
        place = f" on line {steps.line}" if steps.line else ""
        what = f"is given beside training.steps{place}"
        problems.append(tokens.violation("training.tokens", what, "remove one of the two"))


def _expand(kind: Kind, node: Node, tree: Node, problems: list[Violation], below: tuple[Path, ...]) -> Node:
    """A model or machine as a mapping of its fields: a preset, a file, or fields over either.

    A node that cannot be expanded is returned as it is, with a problem recorded.
    """
    name = node if isinstance(node.value, str) else node.entries.get("extends")
    if name is None:
        return node
    path = _follow(kind, name, below, kind, problems)
    base = _mapping_file(kind, path, problems, kind) if path else None
    if base is None or path is None:
        return node
    if kind == "model" and huggingface.recognises(base):
        base = huggingface.convert(base, _seq_len(tree), problems)
    named = name.moved(path.resolve().parent.name if path.name == CONFIG else path.stem)
    base = base.moved({"name": named, **base.entries})
    base = _expand(kind, base, tree, problems, (*below, path.resolve()))
    own = node.moved({k: child for k, child in node.entries.items() if k != "extends"})
    return _without_stale_sources(_merge(base, own, ""), own)


def _seq_len(tree: Node) -> int | None:
    node = tree.at("training.seq_len")
    return node.value if node and isinstance(node.value, int) else None


def _without_stale_sources(node: Node, own: Node) -> Node:
    """Drops the sources of facts that ``own`` (merged into ``node``) overrides without a source."""
    sources, new = node.entries.get("sources"), own.entries.get("sources")
    if sources is None or not isinstance(sources.value, dict):
        return node
    kept = {}
    for key, source in sources.value.items():
        fact = node.at(key)
        files = {leaf.source.shown for leaf in fact.leaves()} if fact else set()
        is_new = new is not None and key in new.entries and COMMAND_LINE not in files
        if is_new or files <= {source.source.shown}:
            kept[key] = source
    return node.moved({**node.entries, "sources": sources.moved(kept)})


def _sharding_mapping(node: Node) -> Node:
    return node.moved({"preset": node}) if isinstance(node.value, str) else node


def _preset_degrees(node: Node) -> dict[str, Node]:
    """The degrees of the preset that a sharding mapping names, at the preset's location."""
    preset = node.entries.get("preset")
    if preset is None or preset.value not in get_args(Preset):
        return {}
    degrees = next(d for name, d in SHARDING_PRESETS.items() if name == preset.value)
    return {kind: preset.moved(degree) for kind, degree in zip(DEGREES, degrees, strict=True)}


def _degrees_only(node: Node) -> Node:
    own = {key: child for key, child in node.entries.items() if key != "preset"}
    return node.moved({**_preset_degrees(node), **own})


def _expand_sharding(node: Node, problems: list[Violation]) -> Node:
    """Adds a preset's degrees to its name; contradicting degrees are a problem."""
    node = _sharding_mapping(node)
    degrees = _preset_degrees(node)
    for kind, degree in degrees.items():
        own = node.entries.get(kind)
        if own and own.value != degree.value:
            name = node.entries["preset"].value
            constraint = f"preset {name} means {kind} {degree.value}"
            problems.append(own.violation(f"{SHARDING}.{kind}", constraint, f"remove preset or {kind}"))
    return node.moved({**node.entries, **degrees}) if degrees else node


def _replace(tree: Node, path: str, node: Node) -> Node:
    key, _, rest = path.partition(".")
    child = _replace(tree.entries[key], rest, node) if rest else node
    return tree.moved({**tree.entries, key: child})
