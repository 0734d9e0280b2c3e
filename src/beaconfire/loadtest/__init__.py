"""A load test for servers that speak the native protocol: `beaconfire bench`.

An annex of the house. It is a client, so of the server's own parts it takes only the words both sides share; nothing
but the command line knows it. One process, the *campaign*, gives orders to *workers*, processes that hold the
connections, publish by a schedule that waits for nobody, and count what arrives.
"""
