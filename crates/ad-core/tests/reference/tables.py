#!/usr/bin/env python3
"""Prints src/math/tables.rs, the tables of the exponential and arc tangent.

Needs mpmath (`pip install mpmath`):

    python3 tables.py > ../../src/math/tables.rs
"""

from mpmath import mp, mpf

mp.prec = 400


def pair(value):
    """A number as the nearest double and the double nearest to the rest."""
    high = float(value)
    return high, float(value - mpf(high))


def rows(name, doc, values):
    print(f"\n/// {doc}")
    print('#[allow(clippy::approx_constant, reason = "a row may be a known constant")]')
    print(f"pub(super) const {name}: [(f64, f64); {len(values)}] = [")
    for value in values:
        high, low = pair(value)
        print(f"    ({high!r}, {low!r}),")
    print("];")


def main():
    print("//! Tables, written by `tests/reference/tables.py`.")
    print("//!")
    print("//! Each number stands as the nearest double and the double nearest to the rest.")
    rows("EXP2", "`2^(i/64)`.", [mp.power(2, mpf(i) / 64) for i in range(64)])
    rows("ATAN", "`atan(i/64)`.", [mp.atan(mpf(i) / 64) for i in range(65)])


if __name__ == "__main__":
    main()
