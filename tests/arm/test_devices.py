"""Which CPU backend each class of ARM devices takes, and that it computes what this machine computes.

Under an emulator: this shows that the code is right, not how fast it is. CPUs compute the same within a tolerance,
never to the bit: the text is one that the model is sure of, and log-probabilities are compared too. With
SHOAL_ARM_TABLE=FILE the rows of the table in docs/devices.md are written there.
"""
import json
import os
import re
import subprocess

import pytest

PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"   # each next token is sure by more than 3 in log-probability
TOKENS = 24
HANG_S = 900     # an emulator beside other work
LOGPROB_DIFFERENCE_MAX = 0.25  # of a chosen token, between two kinds of CPU
QUANTIZATIONS = ("Q4_0", "Q4_K_M", "Q8_0")

# Emulated CPU, the devices it stands for, the backend. An emulator that does not know the CPU skips the row.
CLASSES = [
    ("cortex-a53", "Raspberry Pi 3, old phones", "base", []),
    ("cortex-a72", "Raspberry Pi 4", "base", []),
    ("cortex-a55", "little cores since 2018", "armv8.2_2", ["DOTPROD", "FP16_VA"]),
    ("cortex-a76", "Raspberry Pi 5, RK3588, Snapdragon 865", "armv8.2_2", ["DOTPROD", "FP16_VA"]),
    ("neoverse-n1", "Ampere Altra, Graviton 2", "armv8.2_2", ["DOTPROD", "FP16_VA"]),
    ("max,sve=off,sme=off", "Snapdragon 8 Gen 1 to 3, 8 Elite", "armv8.6_0", ["MATMUL_INT8"]),
    ("neoverse-v1", "some 8 Gen 1, Graviton 3", "armv8.6_1", ["MATMUL_INT8", "SVE"]),
    ("max,sve-max-vq=1,sme=off", "SVE2 at 128 bits", "armv8.6_2", ["MATMUL_INT8", "SVE_CNT=16"]),
    ("max,sve-max-vq=2,sme=off", "SVE2 at 256 bits", "armv8.6_2", ["MATMUL_INT8", "SVE_CNT=32"]),
    ("cortex-a710", "Tensor G3, Dimensity 9000", "armv8.6_2", ["MATMUL_INT8", "SVE"]),
    ("neoverse-n2", "servers with SVE2", "armv8.6_2", ["MATMUL_INT8", "SVE"]),
]


def runs(command, words, **more):
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=HANG_S, stdin=subprocess.DEVNULL,
                          **more)


def knows(qemu, arm_binary, cpu):
    """The CPU's words that this emulator takes, None if it knows no such CPU; old ones have no `sme` to turn off."""
    known = (words for words in (cpu, cpu.replace(",sme=off", "")) if not runs([*qemu(words), arm_binary],
                                                                               ["--version"]).returncode)
    return next(known, None)


def answer(command, model):
    """A greedy answer with log-probabilities, and what the log said."""
    done = runs(command, ["run", model, "--local", "--raw", "--temperature", "0", "-n", str(TOKENS), "--ctx", "128",
                          "--threads", "2", "--json", "--logprobs", "2", "-v", "-p", PROMPT])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def models(smollm2, tmp_path_factory):
    """The test model in each quantization, and this machine's answer to it."""
    binary = os.environ.get("SHOAL_BINARY") or pytest.skip("SHOAL_BINARY is not set")
    folder, made = tmp_path_factory.mktemp("models"), {}
    for quantization in QUANTIZATIONS:
        path = str(folder / f"{quantization}.gguf")
        done = runs([binary], ["quantize", smollm2, quantization, path, "--from-quantized"])
        assert done.returncode == 0, done.stderr
        made[quantization] = (path, answer([binary], path)[0])
    return made


def compare(here, there):
    """The largest difference of a token's log-probability; fails where the tokens are not the same."""
    assert there["tokens"] == here["tokens"], f"{here['text']!r} {there['text']!r}"
    largest = max(abs(mine["logprob"] - theirs["logprob"])
                  for mine, theirs in zip(here["logprobs"], there["logprobs"], strict=True))
    assert largest < LOGPROB_DIFFERENCE_MAX
    return largest


def kleidiai(command, arm_binary, variant, models):
    """What KleidiAI's twin of a backend computes: which kernels it took for Q4_0, and how far that is from here.

    Its Q8_0 is for those who ask for it: such weights stay with ggml's own kernels. None where there is no twin."""
    twin = variant + "-kleidiai"
    if not os.path.exists(os.path.join(os.path.dirname(arm_binary), f"libggml-cpu-{twin}.so")):
        return None
    command = ["env", f"SHOAL_CPU_VARIANT={twin}", *command]
    path, here = models["Q4_0"]
    there, log = answer(command, path)
    kernel = re.search(r"kleidiai: primary q4 kernel feature (\S+)", log)
    assert kernel and " in CPU_KLEIDIAI" in log
    largest = compare(here, there)
    path, here = models["Q8_0"]
    there, log = answer(command, path)
    assert " in CPU_KLEIDIAI" not in log and " in CPU_REPACK" in log
    compare(here, there)
    return f"{kernel[1]}, {TOKENS} of {TOKENS} ({largest:.3f})"


def note(devices, cpu, variant, features, compared, arm):
    if table := os.environ.get("SHOAL_ARM_TABLE"):
        cells = [f"{TOKENS} of {TOKENS} ({largest:.3f})" for largest in compared]
        shown = " ".join(f for f in features.split() if f not in ("NEON", "ARM_FMA", "REPACK", "LLAMAFILE"))
        with open(table, "a") as out:
            out.write(f"| {devices} | `{cpu}` | {variant} | {shown or '-'} | {' | '.join(cells)} | {arm or '-'} |\n")


@pytest.mark.parametrize("cpu,devices,variant,features", CLASSES, ids=[c[0] for c in CLASSES])
def test_a_class_of_devices(qemu, arm_binary, models, cpu, devices, variant, features):
    words = knows(qemu, arm_binary, cpu)
    if words is None:
        pytest.skip(f"this emulator does not know {cpu}")
    told = json.loads(runs([*qemu(words), arm_binary], ["device", "--json"], check=True).stdout)
    assert told["kernels"]["variant"] == variant
    assert set(features) <= set(told["kernels"]["features"])
    # What is loaded is what `shoal device` advises, "base" being its armv8.0_1; SME needs a newer compiler.
    assert told["advice"]["variant"].replace("armv8.0_1", "base") == variant

    compared = []
    for path, here in models.values():
        there, log = answer([*qemu(words), arm_binary], path)
        logged = re.search(r"CPU kernels: (\S+) \(([^)]*)\)", log)
        assert logged and logged[1] == variant
        compared.append(compare(here, there))
    note(devices, cpu, variant, logged[2], compared, kleidiai([*qemu(words), arm_binary], arm_binary, variant, models))


def test_what_ggmls_own_list_gives_a_snapdragon_is_here_too(qemu, arm_binary, models):
    """Dot products without i8mm, for who wants to compare."""
    words = knows(qemu, arm_binary, "max,sve=off,sme=off")
    path, here = models["Q4_0"]
    there, log = answer(["env", "SHOAL_CPU_VARIANT=armv8.2_2", *qemu(words), arm_binary], path)
    assert "CPU kernels: armv8.2_2 " in log and "MATMUL_INT8" not in log
    compare(here, there)


def test_a_variant_that_the_cpu_cannot_run_is_refused(qemu, arm_binary, smollm2):
    done = runs(["env", "SHOAL_CPU_VARIANT=armv8.6_2", *qemu("cortex-a72"), arm_binary],
                ["run", smollm2, "--local", "-p", "x"])
    assert done.returncode != 0 and "armv8.6_2" in done.stderr
