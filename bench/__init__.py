"""Benchmarks: what a delivery costs beside a bare C loop of send(), and what an idle connection weighs."""
