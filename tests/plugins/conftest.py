"""The plugins beside this file register what they are: only tests that ask for one run it."""

collect_ignore_glob = ["*.py"]
