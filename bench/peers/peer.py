"""The Python side of training-step.ts: says what it is, then runs as many steps as each line of standard input asks for."""

import json
import sys
import time

THREADS = 2
BATCH = 64
SIZE = 32
CLASSES = 10
WARM_UP = 3


def serve(version, step):
    """Answers each line, a number of steps, with the seconds that they took. `step` returns when its loss is known."""
    for _ in range(WARM_UP):
        step()
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        count = int(line)
        started = time.perf_counter()
        for _ in range(count):
            step()
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
