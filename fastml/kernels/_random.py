"""Random numbers that are a function of a key and a position: any of them is there without those before it.

So a draw does not depend on how draws are split into blocks, or blocks over threads. The generator is SplitMix64
(Steele, Lea & Flood, *Fast splittable pseudorandom number generators*, 2014): a bijective hash of key + position *
gamma, with gamma the golden ratio as an odd integer of 64 bits. The key is a hash of a seed and the number of a step.

All of it is arithmetic of unsigned integers modulo 2^64, and so the same bits on every machine. To Numba, uint64 with
a literal is float64: hence the constants.
"""

import numpy as np

from fastml.kernels._jit import point

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_27, _30, _31, _32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@point
def mix(z):
    """A bijection of 64 bits in which each bit of the input changes half of the output's."""
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return z ^ (z >> _31)


@point
def key_of(seed, step):
    """Key of the numbers that a step draws."""
    return mix(mix(np.uint64(seed)) + np.uint64(step) * _GAMMA)


@point
def random_bits(key, position):
    """64 random bits."""
    return mix(key + np.uint64(position) * _GAMMA)


@point
def scaled(bits, n):
    """Whole part and fraction, in units of 2^-64, of n times a number in [0, 1) of 64 bits; n below 2^32."""
    n = np.uint64(n)
    return ((bits >> _32) * n + ((bits & _LOW) * n >> _32)) >> _32, bits * n
