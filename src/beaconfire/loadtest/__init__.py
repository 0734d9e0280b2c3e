"""A load test for servers with the Centrifuge client protocol: `beaconfire bench`.

The load test is a client: it imports `base`, `model`, `protocols` and `auth.issue`, and nothing else of the server.
Only the command line imports the load test.

`load_test` runs in the process that the user started. It sends commands to worker processes (`worker`). Workers hold
the connections, publish by a schedule that never waits for the server, and count what their connections receive.
"""
