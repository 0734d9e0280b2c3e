"""Tests of `beaconfire serve --workers N`."""
