"""A module whose import takes a second."""

import time

for _ in range(100):
    time.sleep(0.01)
