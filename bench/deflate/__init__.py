"""What compression costs and saves, measured by `python -m bench.deflate`."""
