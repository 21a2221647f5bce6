#!/usr/bin/env python3
"""What the planner expects of one to four devices of a class over Wi-Fi: the table of docs/devices.md, "Expected".

No model and no device of those is needed: `shoal plan` reads a GGUF header, made up here with the shapes of Llama 3.2
and 3.1 as their publisher states them, in the types that llama.cpp's Q4_0 gives (the output head Q6_K). A class is what
its `decode_gb_s` says: from published tokens a second where there are any, else estimated; CLASSES says which. Shown is
one stream's tokens a second in answers, with a stage on each device.
Arguments: --json prints one object with its checks, else the rows. --keep FOLDER leaves the headers and device files
there, to be given to `shoal plan MODEL --devices FILE` by hand.
"""
import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

DEVICES_MAX = 4
LINK = {"latency_ms": 3, "mb_s": 30}  # kUnmeasuredLink: a home's Wi-Fi
PREFILL_SHARE = 0.2  # of decode_gb_s, estimated: moves first tokens, not what is shown here

# Published tokens a second of one device are those of docs/devices.md, "Speed".
# memory_gib: half of what is built in. models: those shown. by: "p", decode_gb_s is a published speed times the bytes
# of its model; "e", the bandwidth of the memory bus, by its kind, times the share of it that the published figures of a
# Snapdragon 8 Gen 3 reach (35 of 77 GB/s).
CLASSES = [
    {"name": "Raspberry Pi 4", "memory_gib": 2, "decode_gb_s": 3.5, "by": "p", "models": ("1B", "3B", "8B")},
    {"name": "Raspberry Pi 5, RK3588", "memory_gib": 4, "decode_gb_s": 10.5, "by": "p", "models": ("3B", "8B")},
    {"name": "Snapdragon 865, 888", "memory_gib": 4, "decode_gb_s": 20, "by": "e", "models": ("3B", "8B")},
    {"name": "some 8 Gen 1", "memory_gib": 4, "decode_gb_s": 23, "by": "e", "models": ("3B", "8B")},
    {"name": "Snapdragon 8 Gen 3", "memory_gib": 6, "decode_gb_s": 35, "by": "p", "models": ("1B", "3B", "8B")},
    {"name": "Snapdragon 8 Elite", "memory_gib": 6, "decode_gb_s": 25.6, "by": "p", "models": ("3B", "8B")},
    {"name": "Tensor G3, Exynos 2400", "memory_gib": 4, "decode_gb_s": 25, "by": "e", "models": ("3B", "8B")},
    {"name": "Apple M1, Linux", "memory_gib": 8, "decode_gb_s": 31, "by": "e", "models": ("3B", "8B")},
    {"name": "x86 laptop with P and E cores", "memory_gib": 8, "decode_gb_s": 35, "by": "e", "models": ("3B", "8B")},
]
PUBLISHED = {("Raspberry Pi 5, RK3588", "3B"): "4.9 to 5.6", ("Raspberry Pi 5, RK3588", "8B"): "2.2",
             ("Snapdragon 8 Gen 3", "1B"): "50", ("Snapdragon 8 Gen 3", "3B"): "19.7",
             ("Snapdragon 8 Elite", "8B"): "5.1"}

# layers, width, feed-forward width, heads, KV heads, head size, tied embeddings
MODELS = {"1B": (16, 2048, 8192, 32, 8, 64, True), "3B": (28, 3072, 8192, 24, 8, 128, True),
          "8B": (32, 4096, 14336, 32, 8, 128, False)}
VOCABULARY, CONTEXT = 128256, 131072

# GGUF 3 (ggml's gguf.h): kinds of values and of tensors, bytes and weights of a block.
UINT32, FLOAT32, STRING = 4, 6, 8
F32, Q4_0, Q6_K = 0, 2, 14
BLOCKS = {F32: (4, 1), Q4_0: (18, 32), Q6_K: (210, 256)}
ALIGNMENT = 32


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def key(name, value):
    if isinstance(value, str):
        return text(name) + struct.pack("<I", STRING) + text(value)
    kind, form = (FLOAT32, "f") if isinstance(value, float) else (UINT32, "I")
    return text(name) + struct.pack("<I" + form, kind, value)


def tensors(layers, width, inner, heads, kv_heads, head, tied):
    """(name, shape with the width of a row first, kind)"""
    yield "token_embd.weight", (width, VOCABULARY), Q6_K if tied else Q4_0
    for i in range(layers):
        shapes = {"attn_q": (width, heads * head), "attn_k": (width, kv_heads * head),
                  "attn_v": (width, kv_heads * head), "attn_output": (heads * head, width),
                  "ffn_gate": (width, inner), "ffn_up": (width, inner), "ffn_down": (inner, width)}
        for norm in ("attn_norm", "ffn_norm"):
            yield f"blk.{i}.{norm}.weight", (width,), F32
        for name, shape in shapes.items():
            yield f"blk.{i}.{name}.weight", shape, Q4_0
    yield "output_norm.weight", (width,), F32
    if not tied:
        yield "output.weight", (width, VOCABULARY), Q6_K


def write_header(path, shape):
    """A file of the model's length that is a header and no weights. Returns their bytes."""
    layers, width, inner, heads, kv_heads, head, _ = shape
    keys = {"general.architecture": "llama", "general.name": path.stem, "general.file_type": 2,
            "llama.block_count": layers, "llama.context_length": CONTEXT, "llama.embedding_length": width,
            "llama.feed_forward_length": inner, "llama.attention.head_count": heads,
            "llama.attention.head_count_kv": kv_heads, "llama.attention.key_length": head,
            "llama.attention.value_length": head, "llama.rope.dimension_count": head,
            "llama.rope.freq_base": 500000.0, "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "llama.vocab_size": VOCABULARY}
    all_tensors = list(tensors(*shape))
    out = b"GGUF" + struct.pack("<IQQ", 3, len(all_tensors), len(keys))
    out += b"".join(key(name, value) for name, value in keys.items())
    offset = 0
    for name, dims, kind in all_tensors:
        out += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        size, count = BLOCKS[kind]
        weights = dims[0] * (dims[1] if len(dims) > 1 else 1)
        offset += -(-weights // count * size // ALIGNMENT) * ALIGNMENT
    out += b"\0" * (-len(out) % ALIGNMENT)
    path.write_bytes(out)
    os.truncate(path, len(out) + offset)
    return offset


def plan(binary, model, file, device, count):
    """Tokens a second of one stream over `count` devices, a stage on each; None if the model does not fit."""
    speed = {"memory_gib": device["memory_gib"], "decode_gb_s": device["decode_gb_s"],
             "prefill_gb_s": device["decode_gb_s"] * PREFILL_SHARE}
    file.write_text(json.dumps({"devices": [{"name": f"d{i + 1}", **speed} for i in range(count)], "link": LINK}))
    done = subprocess.run([binary, "plan", model, "--devices", file, "--objective", "spread", "--standby", "off",
                           "--json"], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "SHOAL_HOME": str(file.parent / "home")})
    if done.returncode:
        return None
    told = json.loads(done.stdout)
    assert len(told["stages"]) == count, told
    return told["tokens_s"]


def cell(tokens_s):
    return "does not fit" if tokens_s is None else f"{tokens_s:.{0 if tokens_s >= 10 else 1}f} e"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args()
    binary = os.environ.get("SHOAL_BINARY") or sys.exit("SHOAL_BINARY is not set")
    results = []
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as temporary:
        folder = options.keep or pathlib.Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        sizes = {name: write_header(folder / f"llama-{name}-Q4_0.gguf", shape) for name, shape in MODELS.items()}
        for device in CLASSES:
            file = device["name"].replace(" ", "-").replace(",", "")
            for name in device["models"]:
                model = folder / f"llama-{name}-Q4_0.gguf"
                counts = [plan(binary, model, folder / f"{file}-{count}.json", device, count)
                          for count in range(1, DEVICES_MAX + 1)]
                results.append({"device": device["name"], "by": device["by"], "model": name, "tokens_s": counts})
    if options.json:
        fit = [[speed for speed in one["tokens_s"] if speed] for one in results if any(one["tokens_s"])]
        fits = all(one["tokens_s"][-1] for one in results)
        kept = min(speeds[-1] / speeds[0] for speeds in fit)
        checks = [{"name": "every model fits on four", "value": fits, "bar": "true", "holds": fits},
                  {"name": "a stream's speed on the most devices / on the fewest", "value": round(kept, 3),
                   "bar": "> 0.5", "holds": kept > 0.5}]
        print(json.dumps({"bench": "clusters", "model_bytes": sizes, "results": results, "checks": checks}, indent=1))
        return 0 if all(check["holds"] for check in checks) else 1
    for one in results:
        alone = PUBLISHED.get((one["device"], one["model"]))
        cells = [f"{alone} p" if alone else cell(one["tokens_s"][0]), *map(cell, one["tokens_s"][1:])]
        print(f"| {one['device']} | {one['model']} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
