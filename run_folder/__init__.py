"""The folder of one run: its file names, and the only code that reads and writes them."""
