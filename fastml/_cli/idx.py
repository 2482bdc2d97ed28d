"""The idx files of MNIST and Fashion-MNIST, plain or gzipped.

Two zero bytes, the type of the items (8: unsigned bytes), the number of dimensions, each dimension as a
big-endian 32-bit number, then the items. Source: http://yann.lecun.com/exdb/mnist.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from fastml._cli import CommandError

_GZIP_MAGIC = b"\x1f\x8b"
_LEAST_PER_CLASS = 10


def _contents(path):
    """The bytes of a file, unpacked where it is gzipped."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_GZIP_MAGIC) else data
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise CommandError(f"{path} is damaged or cut short: {error}") from error


def read_idx(path, n_dims):
    """The array of unsigned bytes in the idx file ``path``, which must have ``n_dims`` dimensions."""
    data = _contents(path)
    header = 4 + 4 * n_dims
    expected = bytes((0, 0, 8, n_dims))
    if data[:4] != expected:
        raise CommandError(f"{path} is no such idx file: it begins with {data[:4].hex()}, not {expected.hex()}")
    if len(data) < header:
        raise CommandError(f"{path} is cut short: its header has {len(data)} of {header} bytes")
    shape = tuple(np.frombuffer(data, ">u4", n_dims, offset=4).tolist())
    if len(data) - header != math.prod(shape):
        raise CommandError(f"{path} holds {len(data) - header} items where its header says {math.prod(shape)}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _find(folder, name):
    """The file ``name`` or ``name.gz``."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise CommandError(f"there is no {name}.gz (or {name}) in {folder}")


def _read_part(folder, part):
    images_path, labels_path = _find(folder, f"{part}-images-idx3-ubyte"), _find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise CommandError(f"{images_path} has {len(images)} images and {labels_path} has {len(labels)} labels")
    if not images.size:
        raise CommandError(f"there are no images in {images_path}")
    return images.reshape(len(images), -1).astype(np.float32), labels.astype(np.int64)


def read_fashion_mnist(folder):
    """Train and test parts of the four official files: pixels (n, 784) as float32, labels (n,).

    Returns
    -------
    X_train, X_test, y_train, y_test
        In the order of scikit-learn's ``train_test_split``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CommandError(f"there is no folder {folder}")
    X_train, y_train = _read_part(folder, "train")
    X_test, y_test = _read_part(folder, "t10k")
    if X_train.shape[1] != X_test.shape[1]:
        raise CommandError(f"images in {folder} differ in size: {X_train.shape[1]} and {X_test.shape[1]} pixels")
    counts = np.unique(y_train, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < _LEAST_PER_CLASS:
        raise CommandError(f"{folder} needs two or more classes with at least {_LEAST_PER_CLASS} images each")
    return X_train, X_test, y_train, y_test
