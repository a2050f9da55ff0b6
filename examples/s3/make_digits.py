"""Draws the data set of digits.ipynb: `python make_digits.py` writes it to the folder `digits`.

Digits of an old 5x7 display, each shifted, thickened or dimmed by chance, on a noisy ground. The
same files come out each time.
"""

from pathlib import Path

import numpy as np

SIZE = 16
PARTS = {"train-0": 1000, "train-1": 1000, "train-2": 1000, "test-0": 600}
FONT = """
.###. ..#.. .###. ##### ...#. ##### ..##. ##### .###. .###.
#...# .##.. #...# ...#. ..##. #.... .#... ....# #...# #...#
#..## ..#.. ....# ..#.. .#.#. ####. #.... ...#. #...# #...#
#.#.# ..#.. ...#. ...#. #..#. ....# ####. ..#.. .###. .####
##..# ..#.. ..#.. ....# ##### ....# #...# .#... #...# ....#
#...# ..#.. .#... #...# ...#. #...# #...# .#... #...# ...#.
.###. .###. ##### .###. ...#. .###. .###. .#... .###. .##..
"""


def glyphs():
    """The ten digits, 7 x 5, as zeros and ones."""
    lines = [line.split() for line in FONT.split("\n") if line]
    return [
        np.array([[point == "#" for point in line[digit]] for line in lines], "uint8")
        for digit in range(10)
    ]


def draw(count, seed):
    """``count`` pictures (uint8, 16 x 16) and what is on them."""
    random, shapes = np.random.default_rng(seed), glyphs()
    labels = random.integers(10, size=count).astype("uint8")
    # 16 levels are enough, and pack well
    pictures = (random.integers(0, 5, size=(count, SIZE, SIZE)) * 16).astype("uint8")
    for picture, label in zip(pictures, labels, strict=True):
        shape = np.kron(shapes[label], np.ones((random.integers(1, 3), random.integers(1, 3))))
        shape = shape * (random.integers(8, 16) * 16)
        top = random.integers(0, SIZE - shape.shape[0] + 1)
        left = random.integers(0, SIZE - shape.shape[1] + 1)
        place = picture[top : top + shape.shape[0], left : left + shape.shape[1]]
        np.maximum(place, shape.astype("uint8"), out=place)
    return pictures, labels


def parts():
    """Name -> pictures and labels."""
    return {name: draw(count, seed) for seed, (name, count) in enumerate(PARTS.items())}


if __name__ == "__main__":
    folder = Path("digits")
    folder.mkdir(exist_ok=True)
    for name, (pictures, labels) in parts().items():
        file = folder / f"{name}.npz"
        np.savez_compressed(file, pictures=pictures, labels=labels)
        print(f"{file}: {len(labels)} pictures, {file.stat().st_size // 1000} kB")
