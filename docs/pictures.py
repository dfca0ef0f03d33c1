"""Draws the README's pictures: figures of a report in headless Chromium, each on its own, cut to its size.

python docs/pictures.py report.html "Time by phase" docs/time.png
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTH, HEIGHT, MARGIN, SCALE = 960, 1200, 12, 2
# Keeps one figure: the first whose caption starts with the title.
SCRIPT = """<script>
const figure = [...document.querySelectorAll("figure")].find(f => f.querySelector("figcaption")?.textContent.startsWith("TITLE"));
if (figure) { figure.querySelector("a.csv")?.remove(); document.body.replaceChildren(figure); document.body.style.background = "white"; }
</script></body>"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("title", help="how the figure's caption begins")
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    if CHROMIUM is None:
        print("no Chromium: apt-get install chromium", file=sys.stderr)
        return 2
    text = given.report.read_text()
    if f"<figcaption>{given.title}" not in text:
        print(f"{given.report}: no figure {given.title!r}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as place:
        page, shot = Path(place, "page.html"), Path(place, "shot.png")
        # The report's own policy lets no script but its own run.
        page.write_text(text.replace("Content-Security-Policy", "X-Policy").replace("</body>", SCRIPT.replace("TITLE", given.title)))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--force-device-scale-factor={SCALE}"]
        options += [f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={place}/profile", f"--screenshot={shot}"]
        subprocess.run([CHROMIUM, *options, page.as_uri()], check=True, capture_output=True, timeout=240)
        image = Image.open(shot).convert("RGB")
    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    if box is None:
        print(f"{given.report}: figure {given.title!r} is empty", file=sys.stderr)
        return 1
    left, top, right, bottom = box
    space = MARGIN * SCALE
    cut = (max(left - space, 0), max(top - space, 0), min(right + space, image.width), min(bottom + space, image.height))
    image.crop(cut).quantize(256).save(given.picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
