"""What happens when a client asks for something: one module per kind of command."""
