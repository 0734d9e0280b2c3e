"""A whole node and many clients in one event loop, in real time and without a network, on an engine that is slow,
fails, hangs or loses its link.

`world` makes the node and drives the clients, `client` checks what each of them receives, `ledger` knows what the
engine has really stored, and `lateness` measures how long the node keeps the event loop busy.
"""
