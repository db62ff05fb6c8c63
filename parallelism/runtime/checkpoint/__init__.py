"""Checkpoints of a run: boxes of whole tensors, written by each rank, read in any layout."""
