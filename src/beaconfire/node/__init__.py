"""One running server: its sessions, its cluster, admission and drain."""
