"""The vocabulary: publications, positions, requests, results, pushes, identities, grants and events."""
