"""Programs as users write them, for their type checkers; `test_type_checkers.py` runs mypy and pyright on them.

A line that must be rejected has the ignore comments of both checkers. A comment that suppresses no error is an error,
so the tests also fail when a checker accepts such a line.
"""
