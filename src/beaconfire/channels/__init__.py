"""Rules about channels: names, namespaces, options and permissions; and which channels this node is attached to."""
