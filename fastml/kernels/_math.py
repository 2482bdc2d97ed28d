"""Elementary functions that LLVM vectorises: point functions for float32 and float64, within 2 ULP.

Numba from PyPI has no vector libm, so ``math.exp`` in a kernel is one library call per element. Here every function
is straight-line arithmetic in the precision of its argument, with selects in the place of branches:

- ``exp``: x = n ln 2 + r with |r| <= ln(2)/2 and ln 2 in two parts (Cody & Waite, *Software Manual for the Elementary
  Functions*, 1980); a minimax polynomial for e^r; 2^n from shifted bits, in two factors to underflow gradually.
- ``log``: x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = 2 atanh(s) with s = f / (2 + f), arranged as
  in Sun's fdlibm so that the rounding errors are those of the small terms.
- ``log1p_exp``: max(x, 0) + log(1 + e^-|x|), where f = e^-|x| is at most 1 and needs no reduction.
- ``sigmoid``: 1 / (1 + u) or u / (1 + u) with u = e^-|x|, and one Newton step against the rounding errors.
- ``tanh``: x + x^3 P(x^2) near zero, 1 - 2 / (e^2|x| + 1) beyond.
- ``erf``: x + x P(x^2) near zero, 1 - e^(-x^2) P((x - 2) / (x + 2)) / x beyond; ``normal_cdf`` by the same parts.

See Muller, *Elementary Functions* (3rd ed., 2016). The polynomials are Remez fits of the relative error,
those of ``erf`` interpolate in Chebyshev's nodes. All of it
relies on the order of operations as written: hence ``exact_point``. Without fused multiply-add, ``sigmoid`` can be
2.3 ULP off.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from fastml.kernels._jit import exact_point, point, twin

_SQRT_HALF = math.sqrt(0.5)


class _Format:  # pragma: no cover - compile time
    """How the bits of float32 or float64 are laid out, for code generation."""

    def __init__(self, real):
        self.width, self.mantissa, self.bias = (32, 23, 127) if real == types.float32 else (64, 52, 1023)
        self.integer = ir.IntType(self.width)

    def magic(self):
        """Bits of 1.5 * 2^mantissa: added to a small number it leaves its nearest integer in the last bits."""
        return (self.bias + self.mantissa << self.mantissa) + (1 << self.mantissa - 1)

    def bits(self, value):
        """Bits of a Python float, as an integer."""
        return int(np.array(value, f"f{self.width // 8}").view(f"i{self.width // 8}"))

    def constant(self, integer):
        return ir.Constant(self.integer, integer)


def _pick(x, single, double):
    """The constant for the precision of ``x``."""
    return type(x)(single if isinstance(x, np.float32) else double)


@twin(_pick)
def _compiled_pick(x, single, double):  # pragma: no cover - compile time
    if x == types.float32:
        return lambda x, single, double: types.float32(single)
    if x == types.float64:
        return lambda x, single, double: types.float64(double)
    raise TypingError(f"expected float32 or float64, got {x}")


def _polynomial(single, double):
    """A function of x: the polynomial with these coefficients, highest power first, in the precision of x."""

    def polynomial(x):
        total = type(x)(0)
        for coefficient in single if isinstance(x, np.float32) else double:
            total = total * x + type(x)(coefficient)
        return total

    @intrinsic
    def horner(typing_context, x):  # pragma: no cover - compile time
        first, *others = single if x == types.float32 else double

        def codegen(context, builder, signature, args):
            (value,) = args
            real = value.type
            step = builder.module.declare_intrinsic("llvm.fmuladd", [real], ir.FunctionType(real, [real] * 3))
            total = ir.Constant(real, first)
            for coefficient in others:
                total = builder.call(step, [total, value, ir.Constant(real, coefficient)])
            return total

        return x(x), codegen

    @twin(polynomial)
    def compiled(x):  # pragma: no cover - compile time
        return lambda x: horner(x)

    return polynomial


# e^r on |r| <= ln(2)/2, to 2^-28 and 2^-58.
_exp_polynomial = _polynomial(
    (0.0013814544, 0.0083687445, 0.04166839, 0.16666521, 0.49999994, 1.0, 1.0),
    (2.500001512453328e-08, 2.7630306860273686e-07, 2.7557586812298397e-06, 2.4801492949088038e-05)
    + (0.0001984126950578158, 0.001388888894375889, 0.008333333333494952, 0.04166666666652974)
    + (0.1666666666666641, 0.5000000000000011, 1.0, 1.0),
)

# (2 atanh(s) - 2 s) / s^3 in s^2 on 0 <= s <= 1/3, to 2^-27 and 2^-59 of the logarithm.
_log_polynomial = _polynomial(
    (0.28006387, 0.28003094, 0.40021434, 0.6666642),
    (0.1701531348105028, 0.08342057297714933, 0.12105591684670426, 0.13301042317565348, 0.15386554194377067)
    + (0.1818174421792383, 0.2222222396070977, 0.285714285480106, 0.4000000000015591, 0.6666666666666631),
)

# (tanh(x) - x) / x^3 in x^2 on 0 <= x <= 0.55, to 2^-29 and 2^-60 of tanh.
_tanh_polynomial = _polynomial(
    (-0.0062428503, 0.021050714, -0.053847548, 0.13332544, -0.33333316),
    (-1.948721981382683e-05, 8.33045668208933e-05, -0.00023337342231979555, 0.0005884413406769551)
    + (-0.0014555420936566389, 0.0035920919153727172, -0.0088632325901955, 0.021869488385176092)
    + (-0.053968253963736994, 0.1333333333332658, -0.333333333333333),
)

# (erf(x) - x) / x in x^2 on 0 <= x <= 0.77, to 2^-28 and 2^-59 of erf.
_erf_polynomial = _polynomial(
    (-0.0006652643, 0.0051017264, -0.026828947, 0.11283274, -0.3761261, 0.12837917),
    (1.1280303198487752e-08, -1.588697657967136e-07, 1.6424466219522852e-06, -1.4923794195696154e-05)
    + (0.00012055273900865515, -0.000854832581229128, 0.005223977609935185, -0.026866170643971538)
    + (0.11283791670950674, -0.37612638903183687, 0.12837916709551256),
)

# x e^(x^2) erfc(x) in (x - 2) / (x + 2) on 0.5 <= x <= 10 and 0.5 <= x <= 27, to 2^-29 and 2^-59.
_erfc_polynomial = _polynomial(
    (0.00011476566, -0.00023417077, -0.0007713805, 0.0010976775, 0.0047914004, -0.007510987)
    + (-0.028977258, 0.1215146, -0.20384426, 0.16721101, 0.51079136),
    (-1.2354555672906832e-08, -1.8749511996273418e-08, 9.949552788785256e-08, 1.1263257515914494e-07)
    + (-2.019465819179596e-07, -4.883309302161646e-07, -2.4788604961037786e-07, 1.0171882227156889e-06)
    + (2.8029938543349054e-06, 1.2561204073000923e-06, -8.616482673687238e-06, -1.8908382404804724e-05)
    + (6.2248415779173405e-06, 8.930986194909585e-05, 8.942130659193275e-05, -0.000314351043702211)
    + (-0.0007501848029049826, 0.0011266579991156054, 0.004784898564428052, -0.007515738410903168)
    + (-0.02897644669820663, 0.12151493052458838, -0.2038442959288777, 0.1672110104141062)
    + (0.5107913526210115,),
)


def _scale(y, n):
    """``y`` times two to the ``n``, which is an integer below 2 * bias in size plus 1.5 * 2^mantissa."""
    n = n - _pick(n, 1.5 * 2**23, 1.5 * 2**52)
    with np.errstate(over="ignore"):
        return np.ldexp(y, 0 if np.isnan(n) else int(n))


@intrinsic
def _scale_bits(typing_context, y, n):  # pragma: no cover - compile time
    form = _Format(y)

    def codegen(context, builder, signature, args):
        value, power = args
        # Both factors are 2^(an exponent field): 2^(n/2) each, and zero where n is -2 * bias.
        fields = builder.add(builder.bitcast(power, form.integer), form.constant(2 * form.bias - form.magic()))
        half = builder.lshr(fields, form.constant(1))
        for field in half, builder.sub(fields, half):
            factor = builder.bitcast(builder.shl(field, form.constant(form.mantissa)), value.type)
            value = builder.fmul(value, factor)
        return value

    return y(y, n), codegen


@twin(_scale)
def _compiled_scale(y, n):  # pragma: no cover - compile time
    return lambda y, n: _scale_bits(y, n)


def _split(x):
    """``(m, k)`` with x = m 2^k and m in [sqrt(1/2), sqrt(2)) for positive normal numbers, anything for the rest."""
    m, k = np.frexp(x if 0 < x < np.inf else type(x)(1))
    return (m, type(x)(k)) if m >= _SQRT_HALF else (m + m, type(x)(k - 1))


@intrinsic
def _split_bits(typing_context, x):  # pragma: no cover - compile time
    form = _Format(x)

    def codegen(context, builder, signature, args):
        (value,) = args
        low = form.bits(_SQRT_HALF)
        above = builder.add(builder.bitcast(value, form.integer), form.constant(form.bits(1.0) - low))
        kept = builder.and_(above, form.constant((1 << form.mantissa) - 1))
        m = builder.bitcast(builder.add(kept, form.constant(low)), value.type)
        # The exponent field becomes a float without a conversion, which AVX2 has not for 64 bits.
        field = builder.or_(builder.lshr(above, form.constant(form.mantissa)), form.constant(form.magic()))
        offset = ir.Constant(value.type, 1.5 * 2**form.mantissa + form.bias)
        k = builder.fsub(builder.bitcast(field, value.type), offset)
        return context.make_tuple(builder, signature.return_type, [m, k])

    return types.UniTuple(x, 2)(x), codegen


@twin(_split)
def _compiled_split(x):  # pragma: no cover - compile time
    return lambda x: _split_bits(x)


@exact_point
def exp(x):
    """e to the x; 0 and infinity beyond the range, subnormal results included."""
    real = type(x)
    # Wide enough that both factors of the scaling are zero at -infinity: no slow subnormal arithmetic there.
    bound = _pick(x, 176.0, 1418.0)
    x = -bound if x < -bound else x
    x = bound if x > bound else x
    magic = _pick(x, 1.5 * 2**23, 1.5 * 2**52)
    shifted = x * real(1 / math.log(2)) + magic
    n = shifted - magic
    r = x - n * _pick(x, 0.693145751953125, 0.693147180559663)
    r = r - n * _pick(x, 1.4286068e-06, 2.8235290563031577e-13)
    return _scale(_exp_polynomial(r), shifted)


@exact_point
def _log_sum(f, low):
    """log(1 + f) + low for f in [sqrt(1/2) - 1, 1]; ``low`` joins the small terms."""
    real = type(f)
    s = f / (real(2) + f)
    z = s * s
    half = real(0.5) * f * f
    return f - (half - (s * (half + z * _log_polynomial(z)) + low))


@exact_point
def log(x):
    """Natural logarithm; -infinity at zero and NaN below it."""
    real = type(x)
    subnormal = abs(x) < _pick(x, 2.0**-126, 2.0**-1022)
    m, k = _split(x * (real(2.0**54) if subnormal else real(1)))
    k = k - (real(54) if subnormal else real(0))
    low = k * _pick(x, 1.4286068e-06, 2.8235290563031577e-13)
    y = k * _pick(x, 0.693145751953125, 0.693147180559663) + _log_sum(m - real(1), low)
    y = y if x < real(np.inf) else x
    y = y if x > real(0) else real(np.nan)
    return real(-np.inf) if x == real(0) else y


@exact_point
def log1p(x):
    """log(1 + x) for x in [sqrt(1/2) - 1, 1]."""
    return _log_sum(x, type(x)(0))


@exact_point
def log1p_exp(x):
    """log(1 + e^x), the softplus; as accurate for x << 0, where it is nearly e^x."""
    real = type(x)
    return _log_sum(exp(-abs(x)), x if x > real(0) else real(0))


@exact_point
def sigmoid(x):
    """1 / (1 + e^-x); for x << 0, where it is nearly e^x, in the same relative accuracy."""
    real = type(x)
    u = exp(-abs(x))
    over = real(1) if x > real(0) else u
    under = real(1) + u
    inverse = real(1) / under
    y = over * inverse
    # A Newton step takes back what the sum, the quotient and the product were rounded by.
    lost = u - (under - real(1))
    return y + ((over - under * y) - lost * y) * inverse


@exact_point
def tanh(x):
    """Hyperbolic tangent."""
    real = type(x)
    a = abs(x)
    a = real(20) if a > real(20) else a  # where it has long been 1
    z = a * a
    small = a + a * z * _tanh_polynomial(z)
    large = real(1) - real(2) / (exp(a + a) + real(1))
    return np.copysign(small if a < real(0.55) else large, x)


@exact_point
def _erf_near(x):
    """erf of x in [0, 0.77]."""
    return x + x * _erf_polynomial(x * x)


@exact_point
def _erfc_far(x, decay):
    """1 - erf(x) for x in [0.5, 27], from ``decay`` = e^(-x^2)."""
    two = type(x)(2)
    return decay * _erfc_polynomial((x - two) / (x + two)) / x


@exact_point
def erf(x):
    """The error function."""
    real = type(x)
    a = abs(x)
    a = real(8) if a > real(8) else a  # where it has long been 1
    is_near = a < real(0.75)
    far = real(1) - _erfc_far(real(1) if is_near else a, exp(-a * a))
    return np.copysign(_erf_near(a) if is_near else far, x)


@exact_point
def normal_cdf(x):
    """(1 + erf(x / sqrt 2)) / 2; for x << 0, where that cancels, off by x^2 / 2 ULP."""
    real = type(x)
    half = real(0.5)
    a = abs(x) * real(_SQRT_HALF)
    limit = _pick(x, 10.0, 27.0)
    a = limit if a > limit else a
    is_near = a < half
    far = half * _erfc_far(half if is_near else a, exp(-half * x * x))
    below = half - half * _erf_near(a) if is_near else far
    return real(1) - below if x > real(0) else below


def maximum(a, b):
    """The larger of two numbers, NaN if one of them is."""
    return np.maximum(a, b)


@intrinsic
def _maximum_call(typing_context, a, b):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        real = args[0].type
        function = builder.module.declare_intrinsic("llvm.maximum", [real], ir.FunctionType(real, [real, real]))
        return builder.call(function, args)

    return a(a, a), codegen


@twin(maximum)
def _compiled_maximum(a, b):  # pragma: no cover - compile time
    return lambda a, b: _maximum_call(a, b)


@point
def row_max(z):
    """Maximum of a contiguous row of at least one number; unlike a comparison, this form vectorises."""
    top = z[0]
    for j in range(len(z)):
        top = maximum(top, z[j])
    return top
