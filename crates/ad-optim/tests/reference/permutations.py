"""Reference permutations of the shuffle that `Batches` documents, with a ChaCha8 of its own.

Writes permutations.csv beside this file: seed, epoch, and the order of the samples. The tests read
the csv alone; run this by hand after a change, with `python3 permutations.py`.
"""

import csv
import pathlib
import struct

MASK32 = (1 << 32) - 1


def quarter_round(s, a, b, c, d):
    for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) & MASK32
        s[z] ^= s[x]
        s[z] = (s[z] << bits | s[z] >> (32 - bits)) & MASK32


def chacha_words(key, rounds):
    """The 32-bit words of the key stream: 64-bit block counter from 0, 64-bit stream number 0."""
    counter = 0
    while True:
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key)]
        start += [counter & MASK32, counter >> 32, 0, 0]
        s = start[:]
        for _ in range(rounds // 2):
            quarter_round(s, 0, 4, 8, 12)
            quarter_round(s, 1, 5, 9, 13)
            quarter_round(s, 2, 6, 10, 14)
            quarter_round(s, 3, 7, 11, 15)
            quarter_round(s, 0, 5, 10, 15)
            quarter_round(s, 1, 6, 11, 12)
            quarter_round(s, 2, 7, 8, 13)
            quarter_round(s, 3, 4, 9, 14)
        yield from ((a + b) & MASK32 for a, b in zip(s, start))
        counter += 1


def permutation(count, seed, epoch):
    words = chacha_words(struct.pack("<QQ", seed, epoch) + b"ad-optim shuffle", 8)

    def below(n):
        while True:
            low = next(words)
            product = (next(words) << 32 | low) * n
            if product % 2**64 >= 2**64 % n:
                return product >> 64

    order = list(range(count))
    for i in range(count - 1, 0, -1):
        j = below(i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def main():
    # The first block of ChaCha20 for a key of zeros begins 76 b8 e0 ad (RFC 7539, appendix A.1).
    assert next(chacha_words(bytes(32), 20)) == 0xADE0B876
    path = pathlib.Path(__file__).with_name("permutations.csv")
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["seed", "epoch", "order"])
        for count, seed, epoch in [(10, 0, 1), (10, 7, 1), (10, 7, 2), (100, 2**64 - 1, 3)]:
            out.writerow([seed, epoch, " ".join(map(str, permutation(count, seed, epoch)))])


if __name__ == "__main__":
    main()
