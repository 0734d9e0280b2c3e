"""The client commands: one module per kind of command, and `dispatch`, which finds the handler of a command."""
