"""Corpora: prepared from text (prepare), read as samples (samples).

Importing this package loads neither torch nor megatron-core; reading a corpus does.
"""

from frontrunner.parallelism.runtime.data.samples import Dataset, open_dataset, unigram_loss

__all__ = ["Dataset", "open_dataset", "unigram_loss"]
