"""How fast attacks and dynamic inference are: `python -m benchmarks` writes README.md beside this file. Benchmarks are no tests."""
