"""The types that all layers share: publications, positions, requests, results, pushes, identities, grants, events.

Requests, results and pushes are the messages of the Centrifuge client protocol v2. Other protocols translate their
own messages into these.
"""
