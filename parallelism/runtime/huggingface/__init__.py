"""Models of the transformers library: reads and writes weights and configuration in a folder.

A full model maps the global names of parameters (``sharding.parameters``) to float32 tensors of full shape.
Here it is a function from name to tensor, so that only one tensor is in memory at a time.

To write, given the function ``get`` of a checkpoint::

    paths = write_folder(spec.model, get, Path("my-model"), torch.bfloat16, tokenizer=Path("tokenizer.json"))

and to read, one parameter after the other::

    model, get_theirs = read_folder(Path("my-model"))
    for name, tensor in from_huggingface(model, get_theirs):
        ...

Both raise SpecError with everything that is wrong: no transformers family can express the model, the folder
already exists, or files are missing or hold other tensors.
"""
