"""Several processes that are one server: the supervisor, the hub with the engine, and the workers with the clients."""
