"""Models of the library transformers: weights and configuration, from and to a folder.

A full model is a mapping from the global names of parameters (``sharding.parameters``) to float32 tensors of
their full shapes; here it is a function from name to tensor, so that one tensor is in memory at a time.

Out, given such a function ``get`` of a checkpoint::

    paths = write_folder(spec.model, get, Path("my-model"), torch.bfloat16, tokenizer=Path("tokenizer.json"))

and in, one parameter after the other::

    model, get_theirs = read_folder(Path("my-model"))
    for name, tensor in from_huggingface(model, get_theirs):
        ...

Both raise SpecError with all that is wrong with the request: a model that no family of transformers
expresses, a folder that exists already, files that are missing or hold other tensors.
"""
