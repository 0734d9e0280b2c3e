"""What a client can do, the same for every protocol: one module per topic, which `assembly` connects."""
