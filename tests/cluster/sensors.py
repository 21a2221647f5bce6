"""Folders that stand in for the /sys of a device: what its battery and its thermometer say."""


class Battery:
    def __init__(self, root):
        self.root = root
        self._battery = root / "sys/class/power_supply/battery"
        self._charger = root / "sys/class/power_supply/usb"
        for folder, kind in ((self._battery, "Battery"), (self._charger, "USB")):
            folder.mkdir(parents=True)
            (folder / "type").write_text(kind + "\n")
        self.set(80, charging=False)

    def set(self, percent, charging):
        (self._battery / "capacity").write_text(f"{percent}\n")
        (self._battery / "status").write_text("Charging\n" if charging else "Discharging\n")
        (self._charger / "online").write_text(f"{int(charging)}\n")


class Thermometer:
    """Of a processor that its system slows at 95 degrees."""

    def __init__(self, root):
        self._zone = root / "sys/class/thermal/thermal_zone0"
        self._zone.mkdir(parents=True)
        for name, text in {"type": "cpu-thermal", "trip_point_0_type": "passive", "trip_point_0_temp": 95000}.items():
            (self._zone / name).write_text(f"{text}\n")
        self.set(60)

    def set(self, celsius):
        """In one step: a reading never meets half a number."""
        beside = self._zone / "temp.new"
        beside.write_text(f"{celsius * 1000}\n")
        beside.replace(self._zone / "temp")
