"""A run in the words of other trainers, one module each. Nothing here imports torch or a trainer."""
