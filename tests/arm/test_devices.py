"""Which CPU backend each class of ARM devices takes, and that it computes what this machine computes.

Under an emulator: this shows that the code is right, not how fast it is. CPUs compute the same within a tolerance,
never to the bit: the text is one that the model is sure of, and log-probabilities are compared too. With
SHOAL_ARM_TABLE=FILE the rows of the table in docs/devices.md are written there, each cell as soon as it is known.
"""
import json
import os
import re
import subprocess

import pytest

PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"   # each next token is sure by more than 3 in log-probability
TOKENS = 24
HANG_S = 900     # an emulator beside other work
THREADS = os.environ.get("SHOAL_ARM_THREADS", "2")  # 1 where the machine is busy: threads wait for each other
SNAPDRAGON = "max,sve=off,sme=off"  # 8 Gen 1 to 3, 8 Elite
LOGPROB_DIFFERENCE_MAX = 0.25  # of a chosen token, between two kinds of CPU
QUANTIZATIONS = ("Q4_0", "Q4_K_M", "Q8_0")

# Emulated CPU, the devices it stands for, the backend. An emulator that does not know the CPU skips the row; so does a
# build without the backend, where no compiler for SME was at hand.
CLASSES = [
    ("cortex-a53", "Raspberry Pi 3, old phones", "base", []),
    ("cortex-a72", "Raspberry Pi 4", "base", []),
    ("cortex-a55", "little cores since 2018", "armv8.2_2", ["DOTPROD", "FP16_VA"]),
    ("cortex-a76", "Raspberry Pi 5, RK3588, Snapdragon 865", "armv8.2_2", ["DOTPROD", "FP16_VA"]),
    ("neoverse-n1", "Ampere Altra, Graviton 2", "armv8.2_2", ["DOTPROD", "FP16_VA"]),
    (SNAPDRAGON, "Snapdragon 8 Gen 1 to 3, 8 Elite", "armv8.6_0", ["MATMUL_INT8"]),
    ("neoverse-v1", "some 8 Gen 1, Graviton 3", "armv8.6_1", ["MATMUL_INT8", "SVE"]),
    ("max,sve-max-vq=1,sme=off", "SVE2 at 128 bits", "armv8.6_2", ["MATMUL_INT8", "SVE_CNT=16"]),
    ("max,sve-max-vq=2,sme=off", "SVE2 at 256 bits", "armv8.6_2", ["MATMUL_INT8", "SVE_CNT=32"]),
    ("cortex-a710", "Tensor G3, Dimensity 9000", "armv8.6_2", ["MATMUL_INT8", "SVE"]),
    ("neoverse-n2", "servers with SVE2", "armv8.6_2", ["MATMUL_INT8", "SVE"]),
    ("max", "Arm C1, Dimensity 9500 (SME2)", "armv9.2_2", ["MATMUL_INT8", "SVE", "SME"]),
]
GGMLS_LIST = ("", "-armv8.2_1", "-armv8.2_2", "-armv8.2_3", "-armv8.6_1", "-armv8.6_2")  # for Linux, without SME
WITHOUT_DOT_PRODUCTS = "base"  # of which KleidiAI has no kernels
BY_HAND = "SHOAL_KLEIDIAI_Q8_0"  # its Q8_0 too
SME = "armv9"  # variants with it begin so
QEMU_WITH_SME2 = (10, 1)


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
                          "--threads", THREADS, "--json", "--logprobs", "2", "-v", "-p", PROMPT])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


class Models(dict):
    """By quantization: the test model's path, and this machine's answer; made when first asked for."""

    def __init__(self, binary, original, folder):
        super().__init__()
        self._binary, self._original, self._folder = binary, original, folder

    def __missing__(self, quantization):
        path = str(self._folder / f"{quantization}.gguf")
        done = runs([self._binary], ["quantize", self._original, quantization, path, "--from-quantized"])
        assert done.returncode == 0, done.stderr
        self[quantization] = (path, answer([self._binary], path)[0])
        return self[quantization]


@pytest.fixture(scope="module")
def models(smollm2, tmp_path_factory):
    binary = os.environ.get("SHOAL_BINARY") or pytest.skip("SHOAL_BINARY is not set")
    return Models(binary, smollm2, tmp_path_factory.mktemp("models"))


def compare(here, there):
    """The largest difference of a token's log-probability; fails where the tokens are not the same."""
    assert there["tokens"] == here["tokens"], f"{here['text']!r} {there['text']!r}"
    largest = max(abs(mine["logprob"] - theirs["logprob"])
                  for mine, theirs in zip(here["logprobs"], there["logprobs"], strict=True))
    assert largest < LOGPROB_DIFFERENCE_MAX
    return largest


def note(cpu, column, cell):
    """Puts a cell into the row of `cpu`: 3 what the backend uses, 4 to 6 the quantizations, 7 KleidiAI."""
    table = os.environ.get("SHOAL_ARM_TABLE")
    if not table:
        return
    cells = {words: [devices, f"`{words}`", variant, *["not run"] * 5] for words, devices, variant, _ in CLASSES}
    if os.path.exists(table):
        for line in open(table):
            row = line.strip("| \n").split(" | ")
            cells[row[1].strip("`")] = row
    cells[cpu][column] = cell
    with open(table, "w") as out:
        out.writelines(f"| {' | '.join(row)} |\n" for row in cells.values())


def same(largest):
    return f"{TOKENS} of {TOKENS} ({largest:.3f})"


@pytest.fixture
def device(qemu, arm_binary, cpu, variant):
    """The words in front of a command on an emulated device of the class."""
    if variant != WITHOUT_DOT_PRODUCTS and not built(arm_binary, variant):
        pytest.skip(f"{variant} is not built: this compiler cannot")
    if variant.startswith(SME) and version(qemu(cpu)[0]) < QEMU_WITH_SME2:
        pytest.skip("this emulator has no SME2")
    words = knows(qemu, arm_binary, cpu)
    if words is None:
        pytest.skip(f"this emulator does not know {cpu}")
    return ["env", f"SHOAL_BACKENDS={backends(arm_binary, variant)}", *qemu(words), arm_binary]


def version(emulator):
    return tuple(map(int, re.search(r"version (\d+)\.(\d+)", runs([emulator], ["--version"]).stdout).groups()))


def backends(arm_binary, variant):
    """The folder of backends for devices that take `variant`: beside the program, but for those with SME."""
    return os.environ.get("SHOAL_ARM_SME_BACKENDS", "") if variant.startswith(SME) else os.path.dirname(arm_binary)


def built(arm_binary, variant):
    return os.path.exists(os.path.join(backends(arm_binary, variant), f"libggml-cpu-{variant}.so"))


of_each_class = pytest.mark.parametrize("cpu,variant,features", [(c[0], c[2], c[3]) for c in CLASSES],
                                        ids=[c[0] for c in CLASSES])


@of_each_class
def test_a_class_of_devices(device, models, cpu, variant, features):
    told = json.loads(runs(device, ["device", "--json"], check=True).stdout)
    assert told["kernels"]["variant"] == variant
    assert set(features) <= set(told["kernels"]["features"])
    # What is loaded is what `shoal device` advises, "base" being its armv8.0_1.
    assert told["advice"]["variant"].replace("armv8.0_1", WITHOUT_DOT_PRODUCTS) == variant

    for column, quantization in enumerate(QUANTIZATIONS, 4):
        path, here = models[quantization]
        there, log = answer(device, path)
        logged = re.search(r"CPU kernels: (\S+) \(([^)]*)\)", log)
        assert logged and logged[1] == variant
        note(cpu, column, same(compare(here, there)))
    shown = " ".join(f for f in logged[2].split() if f not in ("NEON", "ARM_FMA", "REPACK", "LLAMAFILE"))
    note(cpu, 3, shown or "-")


@of_each_class
def test_kleidiai_on_a_class_of_devices(device, arm_binary, models, cpu, variant, features):
    """KleidiAI's twin of the backend: which kernels it took for Q4_0, by the log, and that it computes the same."""
    twin = variant + "-kleidiai"
    if variant == WITHOUT_DOT_PRODUCTS:
        assert not built(arm_binary, twin)
        note(cpu, 7, "has none without dot products")
        return
    if not built(arm_binary, twin):
        pytest.skip("this build has no KleidiAI")
    path, here = models["Q4_0"]
    # All threads of a stage use SME, as where it was measured to be the fastest; unmeasured, none does.
    sme = [f"GGML_KLEIDIAI_SME={THREADS}", f"GGML_TOTAL_THREADS={THREADS}"] if variant.startswith(SME) else []
    there, log = answer(["env", f"SHOAL_CPU_VARIANT={twin}", *sme, *device], path)
    kernel = re.search(r"kleidiai: primary q4 kernel feature (\S+)", log)
    assert kernel and " in CPU_KLEIDIAI" in log and f"CPU kernels: {twin} " in log
    assert kernel[1].startswith("SME") == bool(sme)
    note(cpu, 7, f"{kernel[1]}, {same(compare(here, there))}")


def test_kleidiai_leaves_q8_0_to_ggml(qemu, arm_binary, models):
    """Its Q8_0 is for those who ask for it: its error is 2.6 times as large."""
    if not built(arm_binary, "armv8.6_0-kleidiai"):
        pytest.skip("this build has no KleidiAI")
    words = knows(qemu, arm_binary, SNAPDRAGON)
    path, here = models["Q8_0"]
    there, log = answer(["env", "SHOAL_CPU_VARIANT=armv8.6_0-kleidiai", *qemu(words), arm_binary], path)
    assert " in CPU_KLEIDIAI" not in log and " in CPU_REPACK" in log and BY_HAND not in log
    compare(here, there)
    command = ["env", "SHOAL_CPU_VARIANT=armv8.6_0-kleidiai", f"{BY_HAND}=1", *qemu(words), arm_binary]
    log = answer(command, path)[1]
    assert " in CPU_KLEIDIAI" in log and log.count(f"{BY_HAND}=1") == 1 and "2.6 times the error" in log


def test_a_snapdragon_without_sve_has_i8mm_where_ggmls_own_list_gives_dot_products(qemu, arm_binary, models, tmp_path):
    """Of ggml's own list for Linux each backend with i8mm wants SVE too; ours has one more."""
    command = [*qemu(knows(qemu, arm_binary, SNAPDRAGON)), arm_binary]
    path, here = models["Q4_0"]
    there, log = answer(command, path)
    assert re.search(r"CPU kernels: armv8\.6_0 \([^)]*MATMUL_INT8", log)
    compare(here, there)

    for name in GGMLS_LIST:
        library = f"libggml-cpu{name}.so"
        os.symlink(os.path.join(os.path.dirname(arm_binary), library), tmp_path / library)
    there, log = answer(["env", f"SHOAL_BACKENDS={tmp_path}", *command], path)
    assert re.search(r"CPU kernels: armv8\.2_2 \([^)]*DOTPROD", log) and "MATMUL_INT8" not in log
    compare(here, there)


def test_a_variant_that_the_cpu_cannot_run_is_refused(qemu, arm_binary, smollm2):
    done = runs(["env", "SHOAL_CPU_VARIANT=armv8.6_2", *qemu("cortex-a72"), arm_binary],
                ["run", smollm2, "--local", "-p", "x"])
    assert done.returncode != 0 and "armv8.6_2" in done.stderr
