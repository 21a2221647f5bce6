"""MNN against ggml on one matrix product on one core: one row, as a token of an answer has it, and 64 rows of a prompt.

The matrix is made here, turned into MNN's format by its own converter (4 bits, a scale and an offset for 32 weights),
and multiplied by the MNN of the python package, whose build decides which instructions it has; ggml multiplies Q4_0 by
`shoal kernel-speed`. Both are pinned to the same core and take turns; the best of each counts. F32 is beside it, which
waits for memory alone. It says nothing of phones: there MNN has kernels of its own for dot products and i8mm.
usage: mnn.py [--rounds N], with a python that has MNN, onnx and numpy (in an environment of its own), and SHOAL_BINARY.
Prints one JSON object with its checks.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

WIDTH, OUTPUTS, ROWS, SECONDS = 2048, 32768, 64, 1.0
WEIGHTS = WIDTH * OUTPUTS
BYTES_A_WEIGHT = {"Q4_0": 18 / 32, "F32": 4}
CORE = min(os.sched_getaffinity(0))


def convert(folder):
    """The matrix as MNN has it: by type, the path of a model that is nothing else."""
    import numpy
    import onnx
    import MNN  # noqa: F401  (it brings _tools)
    import _tools   # not MNN.tools, whose scripts install packages and report their use
    weights = numpy.random.default_rng(1).standard_normal((WIDTH, OUTPUTS), dtype=numpy.float32) / 50
    value = lambda name, width: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", width])
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [value("x", WIDTH)],
                                   [value("y", OUTPUTS)], [onnx.numpy_helper.from_array(weights, "w")])
    source = str(folder / "product.onnx")
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), source)
    for kind, words in (("F32", []), ("Q4_0", ["--weightQuantBits", "4", "--weightQuantBlock", "32"])):
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", str(folder / kind),
                           "--bizCode", "bench", *words])


def mnn_side(path):
    """Runs in a process of its own: prints the seconds of one row and of ROWS, and its threads are one."""
    import MNN
    import numpy
    low = "low" if path.name != "F32" else "normal"   # low: computes with the 4 bits; normal: with what they stand for
    runtime = MNN.nn.create_runtime_manager(({"backend": "CPU", "numThread": 1, "memory": low, "precision": "normal"},))
    net = MNN.nn.load_module_from_file(str(path), ["x"], ["y"], runtime_manager=runtime)
    seconds = []
    for rows in (1, ROWS):
        values = numpy.random.default_rng(2).standard_normal(rows * WIDTH).astype(numpy.float32).tolist()
        x = MNN.expr.const(values, [rows, WIDTH], MNN.expr.NCHW)
        best, end = float("inf"), time.monotonic() + SECONDS
        for _ in range(1000):
            started = time.perf_counter()
            net.onForward([x])[0].read()
            best = min(best, time.perf_counter() - started)
            if time.monotonic() > end:
                break
        seconds.append(best)
    print("result", *seconds)


def said(command):
    done = subprocess.run(command, check=True, capture_output=True, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, {CORE}))
    return next(line for line in reversed(done.stdout.splitlines()) if line[:1].isdigit() or line.startswith("result"))


def mnn_weights_s(path):
    return [WEIGHTS / float(s) for s in said([sys.executable, __file__, "--side", str(path)]).split()[1:]]


def ggml_weights_s(kind):
    one, many, *_ = said([os.environ["SHOAL_BINARY"], "kernel-speed", kind, "1", "normal"]).split()
    return [float(one) / BYTES_A_WEIGHT[kind], float(many) / BYTES_A_WEIGHT[kind]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--convert", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        return convert(options.convert)
    if options.side:
        return mnn_side(options.side)
    import MNN
    best = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        subprocess.run([sys.executable, __file__, "--convert", folder], check=True, stdout=sys.stderr)
        for _ in range(options.rounds):
            for kind in BYTES_A_WEIGHT:
                for who, speeds in (("mnn", mnn_weights_s(folder / kind)), ("ggml", ggml_weights_s(kind))):
                    best[who, kind] = [max(pair) for pair in zip(speeds, best.get((who, kind), (0, 0)))]
    checks = []
    for kind in BYTES_A_WEIGHT:
        for index, what in enumerate(("one row", f"{ROWS} rows")):
            ratio = best["ggml", kind][index] / best["mnn", kind][index]
            checks.append({"name": f"{kind}, {what}: ggml against MNN on one core", "value": ratio, "bar": 1.0,
                           "holds": ratio >= 1.0})
    print(json.dumps({"benchmark": "mnn", "mnn": MNN.version(), "weights": WEIGHTS, "rows": ROWS,
                      "weights_s": {f"{who} {kind}": speeds for (who, kind), speeds in best.items()},
                      "checks": checks}))


if __name__ == "__main__":
    main()
