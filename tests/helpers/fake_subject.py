"""A subject that sleeps: what benchmarks/harness/protocol.py needs, without a library.

python -m tests.helpers.fake_subject --seconds=0.01 --slower=3
"""

import argparse
import sys
import time

from benchmarks.harness.protocol import serve
from benchmarks.harness.workloads import Product


class Fake:
    products = (Product(1, 10, 10, 10), Product(2, 10, 10, 10, count=3))

    def __init__(self, options):
        self.options, self.steps = options, 0

    def step(self):
        print("a library that prints")
        self.steps += 1
        if self.steps == self.options.dies_at:
            sys.exit("no memory left")
        time.sleep(self.options.seconds * self.options.slower)

    def multiplier(self, product, times):
        return lambda: time.sleep(1e-3 * times * product.batch)

    def facts(self):
        return {"device": "none", "steps_taken": self.steps}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.01)
    parser.add_argument("--slower", type=float, default=1.0)
    parser.add_argument("--dies_at", type=int, default=0)
    parser.add_argument("--needs", default="")
    options = parser.parse_args()

    def make():
        if options.needs:
            __import__(options.needs)
        return Fake(options)

    serve(make)


if __name__ == "__main__":
    main()
