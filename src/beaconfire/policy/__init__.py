"""Decisions about clients: the port and the configured rules."""
