"""Several nodes of several packages on one Linux machine, with the links between them shaped."""
