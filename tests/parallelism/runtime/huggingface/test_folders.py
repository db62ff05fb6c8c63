"""Folders of transformers: written whole or not at all, and read with all that is wrong at once."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer

from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.runtime.data.tokenizer import byte_encoder
from frontrunner.parallelism.runtime.huggingface.mapping import from_huggingface
from frontrunner.parallelism.runtime.huggingface.read import read_folder
from frontrunner.parallelism.runtime.huggingface.write import write_folder
from support.huggingface import MODELS, parameters

Tensors = dict[str, torch.Tensor]
LAYER = "model.layers.0."


def write(folder: Path, name: str = "llama", **options: Any) -> tuple[ModelSpec, Tensors]:
    model = ModelSpec(**MODELS[name] | {"name": folder.name})
    values = parameters(model)
    write_folder(model, values.__getitem__, folder, options.pop("dtype", torch.float32), **options)
    return model, values


def read(folder: Path) -> tuple[ModelSpec, Tensors]:
    model, get = read_folder(folder)
    return model, dict(from_huggingface(model, get))


def same(found: Tensors, expected: Tensors) -> bool:
    """Bit by bit, and of the same type, which torch.equal passes over."""
    equal = (found[n].dtype == expected[n].dtype and torch.equal(found[n], expected[n]) for n in expected)
    return found.keys() == expected.keys() and all(equal)


def constraints(folder: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read_folder(folder)
    assert all(violation.fix for violation in caught.value.violations)
    return [str(violation) for violation in caught.value.violations]


@pytest.fixture
def change(tmp_path: Path) -> Callable[[Callable[[Tensors], Any]], Path]:
    """A written folder in which a function has changed the tensors."""

    def changed(edit: Callable[[Tensors], Any], name: str = "llama") -> Path:
        folder = tmp_path / name
        write(folder, name)
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")
        return folder

    return changed


@pytest.mark.parametrize("name", MODELS)
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    model, values = write(tmp_path / name, name)
    found, tensors = read(tmp_path / name)
    assert found == model
    assert same(tensors, values)


def test_large_models_are_cut_into_files(tmp_path: Path) -> None:
    model, values = write(tmp_path / "model", shard_bytes=20_000)
    files = sorted((tmp_path / "model").glob("*.safetensors"))
    assert [file.name for file in files] == [
        f"model-{i:05}-of-{len(files):05}.safetensors" for i in range(1, len(files) + 1)
    ]
    assert len(files) > 3
    held = [load_file(file) for file in files]
    sizes = [sum(tensor.nbytes for tensor in tensors.values()) for tensors in held]
    assert max(sizes) <= 20_000
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(sizes)
    assert index["weight_map"] == {n: f.name for f, part in zip(files, held, strict=True) for n in part}
    assert read(tmp_path / "model")[0] == model
    assert same(read(tmp_path / "model")[1], values)


def test_a_tensor_larger_than_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    _, values = write(tmp_path / "model", shard_bytes=1)
    assert all(len(load_file(file)) == 1 for file in (tmp_path / "model").glob("*.safetensors"))
    assert same(read(tmp_path / "model")[1], values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    _, values = write(tmp_path / "model", dtype=dtype)
    assert {t.dtype for t in load_file(tmp_path / "model" / "model.safetensors").values()} == {dtype}
    assert AutoConfig.from_pretrained(tmp_path / "model").dtype == dtype
    assert same(read(tmp_path / "model")[1], {n: value.to(dtype).float() for n, value in values.items()})


def test_the_folder_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write(tmp_path / "model")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("model", "other")]
    assert modes[0] == modes[1]


def test_the_tokenizer_comes_along(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(byte_encoder().json)
    model = ModelSpec(**MODELS["llama"] | {"vocab_size": 257, "padded_vocab_size": 384})
    values = parameters(model)
    paths = write_folder(
        model, values.__getitem__, tmp_path / "m", torch.float32, tokenizer=tmp_path / "t.json"
    )
    assert sorted(paths) == sorted((tmp_path / "m").iterdir())
    theirs = AutoTokenizer.from_pretrained(tmp_path / "m")
    text = "Größe , 1.5 m ."
    ids = Tokenizer.from_file(str(tmp_path / "t.json")).encode(text).ids
    assert theirs(text)["input_ids"] == ids
    assert theirs.decode(ids) == text
    assert theirs.eos_token_id == AutoConfig.from_pretrained(tmp_path / "m").eos_token_id == 256


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(byte_encoder().json)
    with pytest.raises(SpecError, match="its 257 tokens exceed the model's vocab_size 59"):
        write(tmp_path / "model", tokenizer=tmp_path / "t.json")
    assert not (tmp_path / "model").exists()


def test_without_a_tokenizer_no_token_is_made_up(tmp_path: Path) -> None:
    write(tmp_path / "model", "gpt2")
    config = AutoConfig.from_pretrained(tmp_path / "model")
    assert (config.bos_token_id, config.eos_token_id) == (None, None)


def test_a_folder_that_holds_something_stays(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write(tmp_path / "model")
    before = (tmp_path / "model" / "config.json").read_bytes()
    with pytest.raises(SpecError, match="is not empty"):
        write(tmp_path / "model", "gpt2")
    assert (tmp_path / "model" / "config.json").read_bytes() == before
    with pytest.raises(SpecError, match="is a file"):
        write(tmp_path / "model" / "config.json")


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    model = ModelSpec(**MODELS["llama"])
    values = parameters(model)

    def get(name: str) -> torch.Tensor:
        if name == "output_layer.weight":
            raise KeyboardInterrupt
        return values[name]

    with pytest.raises(KeyboardInterrupt):
        write_folder(model, get, tmp_path / "model", torch.float32, shard_bytes=1)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors has an exception of its own, which users would see as a bug."""
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    with pytest.raises(OSError, match="No such file") as caught:
        write(tmp_path / "model")
    assert str(caught.value.filename).endswith(".partial/model.safetensors")


def test_only_one_file_is_in_memory_at_a_time(tmp_path: Path) -> None:
    model = ModelSpec(**MODELS["llama"])
    values, seen = parameters(model), list[int]()
    beside = tmp_path / f"model.{os.getpid()}.partial"

    def get(name: str) -> torch.Tensor:
        seen.append(len(list(beside.glob("*.safetensors"))))
        return values[name]

    write_folder(model, get, tmp_path / "model", torch.float32, shard_bytes=1)
    assert seen == sorted(seen)
    assert seen[-1] == len(list((tmp_path / "model").glob("*.safetensors"))) - 1


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_names_of_models_saved_without_their_output_layer(tmp_path: Path, name: str) -> None:
    """And the buffers that some versions of transformers saved."""
    model, values = write(tmp_path / name, name)
    path = tmp_path / name / "model.safetensors"
    tensors = load_file(path)
    prefix = {"gpt2": "transformer.", "gpt_neox": "gpt_neox."}[name]
    tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    buffers = {"gpt2": ["h.0.attn.bias"], "gpt_neox": ["layers.0.attention.masked_bias"]}[name]
    buffers.append("layers.0.attention.rotary_emb.inv_freq")
    save_file(tensors | {key: torch.ones(1) for key in buffers}, path)
    assert same(read(tmp_path / name)[1], values)


def test_the_name_of_the_output_layer_in_transformers_5(change: Any) -> None:
    folder = change(lambda t: t.update({"lm_head.weight": t.pop("embed_out.weight")}), "gpt_neox")
    assert same(read(folder)[1], parameters(ModelSpec(**MODELS["gpt_neox"])))


def test_a_tied_output_layer_may_be_stored_if_it_is_the_embedding(change: Any) -> None:
    words = "model.embed_tokens.weight"
    folder = change(lambda t: t.update({"lm_head.weight": t[words].clone()}), "llama-tied")
    assert same(read(folder)[1], parameters(ModelSpec(**MODELS["llama-tied"])))


def test_a_tied_output_layer_of_its_own_is_refused(change: Any) -> None:
    words = "model.embed_tokens.weight"
    (found,) = constraints(change(lambda t: t.update({"lm_head.weight": t[words] + 1}), "llama-tied"))
    assert "lm_head.weight: has no place in the model of config.json" in found


def test_all_that_is_wrong_with_the_tensors_is_told_at_once(change: Any) -> None:
    def edit(tensors: Tensors) -> None:
        for number in range(4):
            del tensors[f"model.layers.{number}.self_attn.q_proj.weight"]
        tensors["model.extra"] = torch.ones(1)
        tensors[f"{LAYER}mlp.up_proj.weight"] = torch.ones(96, 31)
        tensors[f"{LAYER}mlp.down_proj.weight"] = torch.ones(32, 96, dtype=torch.int8)

    missing, extra, shape, kind = constraints(change(edit))
    assert f"{LAYER}self_attn.q_proj.weight, " in missing
    assert "(and 1 more): is missing from the files, but config.json needs it" in missing
    assert "model.extra: has no place" in extra
    assert f"{LAYER}mlp.up_proj.weight: has shape [96, 31], but config.json says [96, 32]" in shape
    assert f"{LAYER}mlp.down_proj.weight: has type I8, not one of" in kind


def test_a_bias_that_the_configuration_does_not_have_is_refused(change: Any) -> None:
    key = f"{LAYER}self_attn.q_proj.bias"
    (found,) = constraints(change(lambda tensors: tensors.update({key: torch.zeros(32)})))
    assert f"{key}: has no place" in found


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    (found,) = constraints(tmp_path / "nothing")
    assert "holds no config.json" in found
    write(tmp_path / "one")
    (tmp_path / "one" / "model.safetensors").write_bytes(b"no tensors")
    (found,) = constraints(tmp_path / "one")
    assert "model.safetensors: cannot be read" in found
    (tmp_path / "one" / "model.safetensors").unlink()
    (found,) = constraints(tmp_path / "one")
    assert "the file does not exist; save the model as safetensors" in found
    write(tmp_path / "many", shard_bytes=20_000)
    first, second, *_ = sorted((tmp_path / "many").glob("*.safetensors"))
    first.unlink()
    second.unlink()
    assert [first.name in constraints(tmp_path / "many")[0], len(constraints(tmp_path / "many"))] == [True, 2]


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("no json", "is not an index"),
        ("[]", "is not an index"),
        ('{"weight_map": 3}', "is not an index"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "not in its folder"),
    ],
)
def test_an_index_that_is_none(tmp_path: Path, text: str, constraint: str) -> None:
    write(tmp_path / "model", shard_bytes=20_000)
    (tmp_path / "model" / "model.safetensors.index.json").write_text(text)
    (found,) = constraints(tmp_path / "model")
    assert constraint in found


def test_an_index_that_is_a_pipe_or_too_deep(tmp_path: Path) -> None:
    write(tmp_path / "model", shard_bytes=20_000)
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.write_text("[" * 100_000)
    assert "is not an index" in constraints(tmp_path / "model")[0]
    index.unlink()
    os.mkfifo(index)
    assert constraints(tmp_path / "model")


def test_more_layers_than_tensors(tmp_path: Path) -> None:
    """Their names alone would fill the memory."""
    write(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text()) | {"num_hidden_layers": 10**12}
    path.write_text(json.dumps(config))
    assert "for the 1,000,000,000,000 layers of config.json" in constraints(tmp_path / "model")[0]


@pytest.mark.parametrize(
    "header",
    [
        (1 << 60, b"{}"),
        (200, b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
        (None, b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,16]}}'),
        (None, b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}'),
        (None, b'{"a":{"dtype":"X9","shape":[4],"data_offsets":[0,16]}}'),
        (
            None,
            b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
            b'"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        ),
        (None, b"[" * 100_000),
    ],
)
def test_a_header_of_tensors_that_lies(tmp_path: Path, header: tuple[int | None, bytes]) -> None:
    write(tmp_path / "model")
    length, text = header
    content = struct.pack("<Q", len(text) if length is None else length) + text + bytes(16)
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    assert "model.safetensors: cannot be read" in constraints(tmp_path / "model")[0]


def test_a_family_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace('"llama"', '"bloom"'))
    (found,) = constraints(tmp_path / "model")
    assert "model_type must be one of" in found


def test_the_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'a: "b" #c ü'
    write(tmp_path / "model")
    shutil.move(tmp_path / "model", folder)
    assert read_folder(folder)[0].name == folder.name
