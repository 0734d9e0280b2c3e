"""One client's session, its subscriptions and the operations that its commands start."""
