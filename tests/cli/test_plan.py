"""`shoal plan`: for devices of a file, for this device, and what is wrong with a file."""
import json

DEVICES = {
    "devices": [
        {"name": "phone", "memory_gib": 1, "decode_gb_s": 40, "prefill_gb_s": 6},
        {"name": "laptop", "memory_gib": 1, "decode_gb_s": 30, "prefill_gb_s": 9},
    ],
    "link": {"latency_ms": 2, "mb_s": 40},
}


def test_devices_of_a_file(shoal, smollm2, tmp_path):
    file = tmp_path / "devices.json"
    file.write_text(json.dumps(DEVICES))
    plan = json.loads(shoal("plan", smollm2, "--devices", file, "--target-tps", "100000", "--json").stdout)
    assert plan["exact"] and plan["stages"] and plan["estimated"] == []
    assert plan["stages"][0]["first"] == 0 and plan["tokens_s"] > 0
    assert {w["device"] for w in plan["with_another"]} == {"phone", "laptop"}
    assert plan["target"]["already"] is False
    text = shoal("plan", smollm2, "--devices", file, "--objective", "throughput", "--streams", "16").stdout
    assert "Expected:" in text and "other plans" in text


def test_what_place_does_unless_told_else(shoal, smollm2, tmp_path):
    """A stage on every device, also where one of them alone is faster."""
    file = tmp_path / "devices.json"
    far = {**DEVICES, "link": {"latency_ms": 200, "mb_s": 1}}
    file.write_text(json.dumps(far))
    plan = json.loads(shoal("plan", smollm2, "--devices", file, "--json").stdout)
    spread = json.loads(shoal("plan", smollm2, "--devices", file, "--objective", "spread", "--json").stdout)
    assert len(plan["stages"]) == 1 and {stage["device"] for stage in spread["stages"]} == {"phone", "laptop"}
    ranges = [[(stage["device"], stage["first"], stage["last"]) for stage in one["stages"]]
              for one in (spread, plan["spread"], spread["spread"])]
    assert ranges[0] == ranges[1] == ranges[2]
    assert spread["tokens_s_many"] < plan["tokens_s_many"] and "alone would" in spread["reason"]
    assert "spread: " in shoal("plan", smollm2, "--devices", file).stdout


def test_the_least_energy(shoal, smollm2, tmp_path):
    file = tmp_path / "devices.json"
    thrifty = {"name": "phone", "memory_gib": 1, "decode_gb_s": 25, "prefill_gb_s": 6, "idle_w": 0.5, "active_w": 4,
               "on_battery": True}
    hungry = {"name": "desktop", "memory_gib": 1, "decode_gb_s": 30, "prefill_gb_s": 9, "idle_w": 30, "active_w": 60}
    file.write_text(json.dumps({"devices": [thrifty, hungry], "link": {"latency_ms": 2, "mb_s": 40}}))
    plan = json.loads(shoal("plan", smollm2, "--devices", file, "--objective", "energy", "--json").stdout)
    assert plan["exact"] and [stage["device"] for stage in plan["stages"]] == ["phone"]
    assert plan["joules_token"] > 0 and "J a token" in plan["reason"]
    spared = json.loads(shoal("plan", smollm2, "--devices", file, "--objective", "energy", "--battery-weight", "1000",
                              "--json").stdout)
    assert [stage["device"] for stage in spared["stages"]] == ["desktop"]
    text = shoal("plan", smollm2, "--devices", file, "--objective", "energy").stdout
    assert "Energy:" in text
    file.write_text(json.dumps(DEVICES))
    done = shoal("plan", smollm2, "--devices", file, "--objective", "energy")
    assert done.returncode == 2 and "what power" in done.stderr


def named_losses(plan):
    return [plan[key] for key in ("survives", "loads_after_loss_of", "does_not_fit_without")]


def test_what_each_loss_means(shoal, smollm2, tmp_path):
    """By memory: two devices that need each other, then two that could each run it all."""
    file = tmp_path / "devices.json"

    def plan(*words, gib, **more):
        devices = [{**DEVICES["devices"][0], "name": name, "memory_gib": size, **more} for name, size in gib.items()]
        file.write_text(json.dumps({**DEVICES, "devices": devices}))
        return shoal("plan", smollm2, "--devices", file, "--ctx", "256", "--objective", "throughput", *words)

    tight = {"a": 0.08, "b": 0.08}
    alone = json.loads(plan("--json", gib=tight).stdout)
    names = [stage["device"] for stage in alone["stages"]]
    assert sorted(names) == ["a", "b"] and all(stage["standby"] == [] for stage in alone["stages"])
    assert named_losses(alone) == [[], [], names]
    text = plan(gib=tight).stdout
    assert "nothing loaded: none." in text and f"The model does not fit without: {', '.join(names)}." in text

    # The best plan is one of them alone; the other has room for a copy.
    roomy = {"a": 2, "b": 2}
    copied = json.loads(plan("--json", gib=roomy).stdout)
    (stage,) = copied["stages"]
    assert stage["standby"] == [name for name in roomy if name != stage["device"]]
    assert named_losses(copied) == [[stage["device"]], [], []]
    text = plan(gib=roomy).stdout
    assert f"nothing loaded: {stage['device']}." in text and "does not fit without" not in text

    off = json.loads(plan("--json", "--standby", "off", gib=roomy).stdout)
    assert named_losses(off) == [[], [stage["device"]], []]
    assert f"load layers first after a loss of: {stage['device']}." in plan("--standby", "off", gib=roomy).stdout


def test_this_device(shoal, smollm2, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path))
    plan = json.loads(shoal("plan", smollm2, "--json").stdout)
    assert plan["estimated"] == ["this device"] and len(plan["stages"]) == 1


def test_a_file_that_is_wrong(shoal, smollm2, tmp_path):
    file = tmp_path / "devices.json"
    file.write_text(json.dumps({"devices": DEVICES["devices"]}))
    done = shoal("plan", smollm2, "--devices", file)
    assert done.returncode == 2 and "how fast the link" in done.stderr
    small = json.loads(json.dumps(DEVICES))
    for device in small["devices"]:
        device["memory_gib"] = 0.05
    file.write_text(json.dumps(small))
    done = shoal("plan", smollm2, "--devices", file)
    assert done.returncode == 4 and "missing" in done.stderr
