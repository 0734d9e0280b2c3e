"""The SQLite engine in real processes on real disks: killed, full, failing, damaged, copied."""
