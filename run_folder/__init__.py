"""The folder of one run: the names of its files, and the only code that writes and reads them."""
