"""Static files that the server hands out."""
