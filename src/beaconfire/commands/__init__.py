"""What happens when a client asks for something: one short function per command, and the table that finds it."""
