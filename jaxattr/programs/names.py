"""List the names of JAX's smooth operations and functions; no other module lists them.

*Smooth* means twice differentiable wherever it is finite. Singular points of ``sqrt``, ``rsqrt``, ``log``, ``div`` and
``pow`` are no kinks: the derivatives grow without limit there, which a result shows (as ``inf`` or NaN) and a kink
does not. Rounding to another floating-point type is none, either; nor are branch cuts of ``atan2`` and the like, across
which derivatives are continuous.
"""

import math

# The scaled Bessel functions, exp(-|x|) I(x), are not among them: a derivative jumps at 0.
_ELEMENTARY = """
add sub mul div neg add_any add_jaxvals square one_minus_square polynomial integer_pow pow sqrt rsqrt cbrt exp exp2
expm1 log log2 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh logistic erf erfc erf_inv lgamma
digamma polygamma igamma igammac igamma_grad_a random_gamma_grad regularized_incomplete_beta zeta
"""
_PRODUCTS = """
dot_general ragged_dot ragged_dot_general conv_general_dilated reduce_sum reduce_prod cumsum cumprod cumlogsumexp
reduce_window_sum fft psum psum_invariant psum_scatter reduce_scatter scatter-add scatter_add scatter-mul scatter_mul
scatter-sub scatter_sub symmetric_product scaled_dot scaled_matmul unreduced_psum unreduced_reduce_scatter
dot_product_attention_fwd dot_product_attention_bwd dot_product_attention_fwd_wrapper dot_product_attention_bwd_wrapper
"""
# is_finite jumps at NaN and infinity only, where no derivative exists.
_MOVES = """
broadcast_in_dim reshape transpose squeeze expand_dims slice dynamic_slice dynamic_update_slice gather scatter
concatenate pad rev copy copy_p convert_element_type reduce_precision real imag complex conj select_n split tile
stack unstack is_finite optimization_barrier sharding_constraint mesh_cast pvary pcast pbroadcast all_gather
all_gather_invariant all_to_all ragged_all_to_all ppermute device_put name annotate broadcast_to tie zeros_like reshard
relayout layout_constraint with_memory_space_constraint preduced reduced_vary_cast vary_unreduced_cast
"""
# Factors are smooth where the matrix is not singular and no two eigenvalues meet.
_FACTORS = """
cholesky cholesky_update triangular_solve custom_linear_solve linear_solve lu qr geqrf geqp3 ormqr householder_product
eigh eig svd schur hessenberg tridiagonal tridiagonal_solve
"""
_OURS = "jaxattr_convolve jaxattr_convolve_to_kernel jaxattr_sum_windows jaxattr_spread_windows"

SMOOTH = frozenset(" ".join((_ELEMENTARY, _PRODUCTS, _MOVES, _FACTORS, _OURS)).split())
"""Smooth operations; an operation on the input that no table lists counts as a kink of its own name."""

_COMPARISONS = "eq ne lt le gt ge eq_to lt_to le_to"

COMPARISONS = frozenset(_COMPARISONS.split())
"""Comparisons, which are kinks only where their results become numbers or choose between numbers."""

_SMOOTH_FUNCTIONS = """
softplus logaddexp logaddexp2 hypot log_softmax logsumexp log_sigmoid gelu silu swish mish squareplus glu standardize
log1mexp xlogy xlog1py logit log_ndtr _log_ndtr ndtri sinc _sinc_maclaurin det slogdet inv pinv _dot_product_attention
dot_product_attention
"""

SMOOTH_FUNCTIONS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_SMOOTH_FUNCTIONS.split(), (-math.inf, math.inf)),
    **dict.fromkeys(("softmax", "_softmax", "sigmoid", "expit"), (0.0, 1.0)),
    "softplus": (0.0, math.inf),
}
"""Functions that are smooth as a whole, though operations inside of them have kinks, with the range of their results.

They must be defined in one of :data:`PACKAGES`: the search enters any other function of such a name.
"""

PACKAGES = ("jax", "flax", "equinox", "haiku", "optax")

_KINKED_FUNCTIONS = """
relu relu6 leaky_relu elu selu celu prelu hard_tanh hard_sigmoid hard_silu hard_swish soft_sign sparse_plus
sparse_sigmoid clip heaviside sign fmod remainder floor_divide trunc fix rint median nanmedian percentile quantile
nanquantile interp digitize searchsorted unwrap ptp
"""

KINKED_FUNCTIONS = frozenset(_KINKED_FUNCTIONS.split())
"""Functions that count as ONE operation, whatever their parts, if there is a kink inside."""
