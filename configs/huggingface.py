"""Reads a Hugging Face ``config.json`` as the fields of a model.

:mod:`frontrunner.configs.huggingface_families` has the families, and the defaults of missing keys.
Unsupported values are violations and are never approximated.

The weight of the balancing loss is read as it is, but the losses differ: transformers' is
``num_experts_per_tok`` times ours, of all layers and sequences together.
"""

from __future__ import annotations

from frontrunner.configs.errors import Violation
from frontrunner.configs.huggingface_families import (
    COUNTS,
    DENSE_LAYERS,
    EXPERTS,
    FAMILIES,
    LLAMA_3_SCALING,
    OWN,
    OWN_KEY,
    OWN_OF_EXPERTS,
    ROPE_KEYS,
    SHARED_WIDTH,
    SPARSE_STEP,
    WITHOUT,
    Family,
)
from frontrunner.configs.yaml_tree import Node


def recognises(tree: Node) -> bool:
    """Whether a mapping is a Hugging Face configuration rather than the fields of a model."""
    return "model_type" in tree.entries or "architectures" in tree.entries


def convert(config: Node, seq_len: int | None, problems: list[Violation]) -> Node:
    """The fields of a model, each at the location of the key it was read from.

    ``seq_len``: the run's sequence length (None: the default), which an attention window must cover.
    """
    kind = config.entries.get("model_type", config.moved(None))
    family = FAMILIES.get(kind.value) if isinstance(kind.value, str) else None
    if family is None:
        constraint = f"model_type must be one of {', '.join(FAMILIES)}"
        if isinstance(kind.value, str) and kind.value in WITHOUT:
            constraint = f"model_type {kind.value}: {WITHOUT[kind.value]}"
        problems.append(
            kind.violation("model", constraint, "write the model's fields instead (num_layers, ...)")
        )
        return config.moved({})
    reading = _Reading(config, family, problems)
    reading.check_values()
    reading.check_window(seq_len)
    fields = {name: config.moved(value) for name, value in family.implied.items()}
    own = config.entries.get(OWN_KEY, config.moved({})).entries
    fields |= {name: own[name] for name in OWN if name in own}
    fields |= {ours: node for ours, theirs in family.keys.items() if (node := reading.get(theirs))}
    fields |= reading.activation(fields.get("activation", config.moved(None)))
    fields |= reading.experts(own)
    return config.moved(fields | reading.rope())


def _same(value: object, wanted: object) -> bool:
    """Equal, and both a truth value or neither: 0 is 0.0 but not false."""
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


class _Reading:
    """One configuration with its family's defaults."""

    def __init__(self, config: Node, family: Family, problems: list[Violation]) -> None:
        self.config, self.family, self.problems = config, family, problems

    def get(self, key: str) -> Node | None:
        """A key's node, or transformers' default; None if there is neither (or null)."""
        node = self.config.entries.get(key)
        if node is None and key in COUNTS and self.family.experts:
            node = next((self.config.entries[name] for name in COUNTS if name in self.config.entries), None)
        if node is None and key in self.family.defaults:
            node = self.config.moved(self.family.defaults[key])
        return node if node and node.value is not None else None

    def refuse(self, key: str, node: Node, constraint: str, fix: str) -> None:
        self.problems.append(node.violation(f"model.{key}", constraint, fix))

    def check_values(self) -> None:
        for key, value in self.family.only.items():
            node = self.get(key)
            if node and not _same(node.value, value):
                self.refuse(key, node, f"only {str(value).lower()} is supported", "choose another model")
        for key in EXPERTS if not self.family.experts else ():
            node = self.get(key)
            if node and node.value not in (0, 1):
                what = f"experts are not supported in the family {self.config.entries['model_type'].value}"
                self.refuse(key, node, what, "choose a dense model")
        for key, other in self.family.equal.items():
            node, twin = self.get(key), self.get(other)
            if node and twin and node.value != twin.value:
                what = f"must equal {other} {twin.plain()}"
                self.refuse(key, node, what, "choose another model")

    def check_window(self, seq_len: int | None) -> None:
        """Attention here covers the whole sequence, like any window of at least that length."""
        switch, window = self.get("use_sliding_window"), self.get("sliding_window")
        if switch and not self._all_layers_are_full(windows=switch.value is not False):
            return
        if window is None or switch and switch.value is False:
            return
        longest = self.get("max_position_embeddings")
        limit = longest.value if longest and isinstance(longest.value, int) else 2048
        length = seq_len or min(2048, limit)
        if not isinstance(window.value, int) or window.value < length:
            what = f"a window shorter than training.seq_len {length} is not supported"
            fix = "choose another model"
            if isinstance(window.value, int) and window.value > 0:
                fix = f"set training.seq_len to at most {window.value}"
            self.refuse("sliding_window", window, what, fix)

    def _all_layers_are_full(self, windows: bool) -> bool:
        """Checks ``layer_types``, which transformers believes whatever the window's switch says."""
        node = self.config.entries.get("layer_types")
        kinds = {"full_attention"} | ({"sliding_attention"} if windows else set())
        types = node.plain() if node else None
        if node is None or types is None or isinstance(types, list) and all(t in kinds for t in types):
            return True
        self.refuse("layer_types", node, "all must be full_attention", "choose another model")
        return False

    def activation(self, node: Node) -> dict[str, Node]:
        name = self.family.activations.get(node.value) if isinstance(node.value, str) else None
        if name is None:
            known = ", ".join(self.family.activations)
            self.refuse("activation", node, f"must be one of {known} in this family", "choose another model")
        return {"activation": node.moved(name)}

    def experts(self, own: dict[str, Node]) -> dict[str, Node]:
        """The mixture of experts, and the width of dense layers, or of all if there are none."""
        family = self.family
        if not family.experts:
            return {}
        found = {ours: node for ours, theirs in family.experts.items() if (node := self.get(theirs))}
        width = self.get(family.dense_width or family.experts["ffn_hidden_size"])
        found |= {name: self.config.moved(value) for name, value in family.expert_fields.items()}
        found |= {name: own[name] for name in OWN_OF_EXPERTS if name in own}
        found |= self._sparse_layers() | self._shared_experts(self.get(family.experts["ffn_hidden_size"]))
        fields = {"experts": self.config.moved(found)}
        return fields | ({"ffn_hidden_size": width} if width else {})

    def _sparse_layers(self) -> dict[str, Node]:
        """transformers: layer i has experts if it is not listed and the step divides i + 1."""
        step, listed = self.get(SPARSE_STEP), self.config.entries.get(DENSE_LAYERS)
        every = step.value if step and isinstance(step.value, int) and step.value > 0 else 1
        layers = listed.plain() if listed else None
        first = len(layers) if isinstance(layers, list) else 0
        if listed and layers and (layers != [*range(first)] or first % every):
            what = "must be the first layers, as many as a multiple of decoder_sparse_step"
            self.refuse(DENSE_LAYERS, listed, what, "choose another model")
        found = {"every": step} if step else {}
        return found | ({"first_dense_layers": listed.moved(first)} if listed and first else {})

    def _shared_experts(self, one: Node | None) -> dict[str, Node]:
        """One MLP, whose width must be a multiple of one expert's."""
        node, width = self.get(SHARED_WIDTH), one.value if one else None
        if node is None or not isinstance(node.value, int) or not isinstance(width, int) or width < 1:
            return {}
        if node.value % width or node.value < 1:
            what = f"must be a multiple of moe_intermediate_size {width}"
            self.refuse(SHARED_WIDTH, node, what, "choose another model")
        return {"shared_experts": node.moved(node.value // width)}

    def rope(self) -> dict[str, Node]:
        """Rotary base, share and scaling; ``rope_parameters`` holds them all since transformers 5."""
        node = self.get("rope_parameters") or self.get("rope_scaling")
        if node is None:
            return {}
        given = {key: child.value for key, child in node.entries.items()}
        kind = given.get("rope_type", given.get("type", "default"))
        fields = {
            ours: node.entries[theirs]
            for ours, theirs in (("rotary_base", "rope_theta"), ("rotary_fraction", "partial_rotary_factor"))
            if ours in self.family.keys and theirs in node.entries
        }
        if "rotary_fraction" not in fields and given.get("partial_rotary_factor", 1) != 1:
            what = "transformers ignores partial_rotary_factor in this family and rotates whole heads"
            self.refuse("rope_scaling", node, what, "set partial_rotary_factor to 1, or remove it")
        as_llama = all(given.get(key) == value for key, value in LLAMA_3_SCALING.items())
        if kind == "llama3" and as_llama and "factor" in given:
            fields["rotary_scaling_factor"] = node.entries["factor"]
        elif kind != "default" or not given.keys() <= ROPE_KEYS or not given:
            what = "only llama3 rotary scaling with factors 1 and 4 from 8192 positions is supported"
            self.refuse("rope_scaling", node, what, "choose another model, or remove the scaling")
        return fields
