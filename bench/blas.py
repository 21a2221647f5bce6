"""OpenBLAS against ggml on one matrix product as a prompt's micro-batch has it: 64 rows by 4-bit weights.

ggml multiplies Q4_0 as it is; BLAS needs the weights as F32, and the time to make them that is not counted here.
Needs numpy, whose wheels carry OpenBLAS. Prints one JSON object with its checks.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

ROWS, WIDTH, OUTPUTS, SECONDS = 64, 2048, 32768, 3.0
BYTES_A_WEIGHT = 18 / 32   # Q4_0
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)   # set for old builds on some machines; they slow a current one


def openblas_s():
    """Seconds of one product, the fastest of SECONDS."""
    import numpy
    rng = numpy.random.default_rng(1)
    rows = rng.standard_normal((ROWS, WIDTH), dtype=numpy.float32)
    weights = rng.standard_normal((OUTPUTS, WIDTH), dtype=numpy.float32)
    best, end = float("inf"), time.monotonic() + SECONDS
    while time.monotonic() < end:
        started = time.perf_counter()
        rows @ weights.T
        best = min(best, time.perf_counter() - started)
    return best


def ggml_s():
    with tempfile.TemporaryDirectory() as home:
        told = json.loads(subprocess.run(
            [os.environ["SHOAL_BINARY"], "device", "--bench", "--quantization", "Q4_0", "--json"], check=True,
            capture_output=True, text=True, env={**os.environ, "SHOAL_HOME": home}).stdout)
    return WIDTH * OUTPUTS * BYTES_A_WEIGHT / told["speed"]["rows_bytes_s"], told["kernels"]


def main():
    try:
        blas = openblas_s()
    except ImportError:
        sys.exit("numpy is missing: run this file by hand with a python that has it, and SHOAL_BINARY set")
    ggml, kernels = ggml_s()
    ratio = blas / ggml
    print(json.dumps({"benchmark": "blas", "rows": ROWS, "weights": WIDTH * OUTPUTS, "openblas_f32_ms": blas * 1e3,
                      "ggml_q4_0_ms": ggml * 1e3, "kernels": kernels["features"],
                      "checks": [{"name": "ggml's Q4_0 takes no longer than OpenBLAS with F32", "value": ratio,
                                  "bar": 1.0, "holds": ratio >= 1.0}]}))


main()
