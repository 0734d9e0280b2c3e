"""Benchmarks of Beaconfire and its peers: CPU per delivery beside a bare C loop of send(), memory per connection, …"""
