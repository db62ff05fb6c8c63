"""Other trainers' files as run files: one module a trainer, and what they share."""
