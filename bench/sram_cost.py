"""Energy, leakage and area of memory banks by CACTI 7, for the data file of the cost model.

`python bench/sram_cost.py` writes `src/unmask/silicon/cost/sram.json`. It needs the package zigzag-dse (`pip install 'unmask[cacti]'`),
which brings the binary. The settings differ from those that the package ships: low-standby-power cells with high-performance periphery, no
ECC, and the organisation with the least sum of dynamic energy and area, instead of the least energy times delay squared.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "src" / "unmask" / "silicon" / "cost" / "sram.json"
TECHNOLOGY_UM = 0.022
SETTINGS = {
    '-Data array cell type - "itrs-hp"': '-Data array cell type - "itrs-lstp"',
    '-Add ECC - "true"': '-Add ECC - "false"',
    '-Optimize ED or ED^2 (ED, ED^2, NONE): "ED^2"': '-Optimize ED or ED^2 (ED, ED^2, NONE): "NONE"',
    "leakage power, cycle time, area) 0:0:0:100:0": "leakage power, cycle time, area) 0:100:0:0:100",
    "area) 20:100000:100000:100000:100000": "area) 100:100000:100000:100000:100000",
}
# Ports that read and write, that read, that write: as many as the engines need that may use the memory at once (`PORTS` of
# `unmask.silicon.cost.sram`). Bits of a bank's row; the smallest capacity, a power of two of bytes.
BANKS = [
    *(("vector", ports, bits, smallest) for ports in ((0, 2, 1), (0, 3, 2), (0, 4, 3)) for bits, smallest in ((128, 11), (512, 13))),
    *(("matrix", ports, 512, 13) for ports in ((1, 0, 0), (0, 1, 1))),
    ("float", (0, 2, 2), 32, 9),
    *(("integer", ports, 32, 9) for ports in ((0, 4, 1), (0, 4, 2))),
    ("program", (0, 1, 1), 128, 11),
]
LARGEST = 16
FIGURES = {
    "read_pj": (r"Total dynamic read energy per access \(nJ\)", 1e3),
    "write_pj": (r"Total dynamic write energy per access \(nJ\)", 1e3),
    "leakage_mw": (r"Total leakage power of a bank \(mW\)", 1.0),
    "gate_leakage_mw": (r"Total gate leakage power of a bank \(mW\)", 1.0),
    "area_mm2": (r"Data array: Area \(mm2\)", 1.0),
    "cycle_ns": (r"Cycle time \(ns\)", 1.0),
}


def package_folder() -> Path:
    """Where zigzag-dse keeps CACTI."""
    found = importlib.util.find_spec("zigzag")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("zigzag-dse is not installed: pip install 'unmask[cacti]'")
    return Path(found.submodule_search_locations[0]) / "cacti" / "cacti_master"


def base_configuration(folder: Path) -> Any:
    """The package's writer of CACTI configurations."""
    spec = importlib.util.spec_from_file_location("cacti_config_creator", folder / "cacti_config_creator.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CactiConfig()


def configuration(base: Any, size: int, bits: int, ports: tuple[int, int, int]) -> str:
    """A CACTI configuration: what the package ships with `SETTINGS` replaced, and the bank."""
    text = "".join(base.baseline_config)
    for before, after in SETTINGS.items():
        if before not in text:
            raise SystemExit(f"the package's configuration no longer has {before!r}")
        text = text.replace(before, after, 1)
    given = {
        "cache_size": size,
        "line_size": bits // 8,
        "IO_bus_width": bits,
        **dict(zip(("rd_wr_port", "ex_rd_port", "ex_wr_port"), ports, strict=True)),
        "technology": TECHNOLOGY_UM,
        "bank_count": 1,
    }
    return text + "".join(f"{option['string']}{given.get(name, option['default'])}\n" for name, option in base.config_options.items())


def main() -> None:
    """Run CACTI for every bank."""
    folder = package_folder()
    base = base_configuration(folder)
    points = []
    with tempfile.TemporaryDirectory() as work:
        for name in ("cacti", "tech_params"):
            source = folder / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, Path(work) / name)
        (Path(work) / "cacti").chmod(0o755)
        for memory, ports, bits, smallest in BANKS:
            for power in range(smallest, LARGEST + 1):
                (Path(work) / "bank.cfg").write_text(configuration(base, 1 << power, bits, ports))
                said = subprocess.run(["./cacti", "-infile", "bank.cfg"], cwd=work, capture_output=True, text=True, check=False).stdout
                found = {name: re.search(pattern + r":\s+([\d.eE+-]+)", said) for name, (pattern, _) in FIGURES.items()}
                if not all(found.values()):
                    print(f"{memory}: CACTI finds no bank of {1 << power} bytes, {bits} bits, ports {ports}")
                    continue
                figures = {name: round(float(match[1]) * FIGURES[name][1], 6) for name, match in found.items() if match}
                points.append({"memory": memory, "ports": ports, "bits": bits, "bytes": 1 << power, **figures})
                print(points[-1], flush=True)
    about = {
        "made_by": "python bench/sram_cost.py",
        "tool": "CACTI 7 of zigzag-dse",
        "technology_um": TECHNOLOGY_UM,
        "temperature_k": 360,
        "settings": list(SETTINGS.values()),
    }
    lines = ",\n".join(f"    {json.dumps(point)}" for point in points)
    DATA.write_text(f'{{\n  "about": {json.dumps(about)},\n  "points": [\n{lines}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
