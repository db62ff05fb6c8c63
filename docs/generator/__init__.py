"""The pages of the reference, made from the code: ``python -m generator FOLDER``."""
