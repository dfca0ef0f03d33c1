"""Number formats and the arithmetic of the machine, bit-exact.

| module | defines |
|---|---|
| `bf16` | rounding to BF16, its bit patterns, the lane's add, subtract and multiply |
| `accumulator` | the 64-bit fixed-point sums: entry by floor, exit by one rounding |
| `functions` | exp, reciprocal and SiLU of BF16; reciprocal and reciprocal square root of FP32 |
| `formats` | the element formats of OCP MX: codes, values, integer significands |
| `mx` | MX blocks of 32: quantize, dequantize, pack, re-block for a transposed read |
| `matmul` | the product of two MX tensors in the matrix accumulator |
| `accuracy` | the largest errors of the functions, measured over every BF16 number |
| `window` | sums of exponentials without a maximum, exact in any order |
| `noise` | counter-based random bits and the Gumbel noise made of them |

BF16 values travel as float32 arrays that hold only BF16-representable numbers ("bf16-valued"). Every definition is an integer algorithm, or
a float expression whose exactness is argued where it stands; `docs/decisions/0001-arithmetic.md` says why sums are exact.
"""
