"""Where cell libraries are found: Debian's, the folder `pdk` of the shared data beside the checkout, or any path."""

from __future__ import annotations

from pathlib import Path

from unmask.errors import UnmaskError
from unmask.silicon.liberty import Library, load_library

DEFAULT = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
_CHECKOUT = Path(__file__).resolve().parents[3]


def cache_folder() -> Path:
    """Where results are kept: `build/silicon` of the working directory."""
    return Path("build") / "silicon"


def shared_kit(name: str) -> Path | None:
    """The folder `pdk/<name>` of the checkout or of a folder `shared` beside it, if there is one."""
    places = (_CHECKOUT / "pdk" / name, _CHECKOUT.parent / "shared" / "pdk" / name)
    return next((place for place in places if place.is_dir()), None)


def library_named(name: str | None, cache: Path) -> Library:
    """The library of a path, of a kit found beside the checkout (`asap7`), or the default one.

    Raises:
        UnmaskError: nothing is there.
    """
    if name is None:
        if not DEFAULT.exists():
            raise UnmaskError(f"{DEFAULT} is not there: apt-get install qflow-tech-osu018, or name a Liberty file")
        return load_library(DEFAULT, cache)
    path = Path(name)
    if not path.exists():
        found = shared_kit(name) if path.name == name else None
        if found is None:
            raise UnmaskError(f"library {name!r}: expected a Liberty file, a folder of them, or a kit in pdk/ beside the checkout")
        path = found
    return load_library(path, cache)
