"""The costs and savings of compression, measured by `python -m bench.deflate`."""
