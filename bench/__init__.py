"""Benchmarks of Beaconfire and its peers: CPU per delivery, memory per connection, latency, …"""
