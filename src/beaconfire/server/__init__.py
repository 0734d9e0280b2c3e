"""The server process: composition root, endpoints, start-up and shutdown."""
