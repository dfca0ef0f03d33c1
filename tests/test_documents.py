"""What the documents show is what the code does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unmask.isa.encoding import format_op
from unmask.isa.manual import manual

ROOT = Path(__file__).parents[1]


def test_the_isa_page_is_the_generated_manual():
    assert (ROOT / "docs" / "isa.md").read_text("utf-8") == manual(), "run `make docs`"


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    done = subprocess.run([*command, str(ROOT / "docs"), str(tmp_path / "site")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")} - {Path("README.html")}
    built = {page.relative_to(tmp_path / "site") for page in (tmp_path / "site").rglob("*.html")}
    assert pages <= built
    assert "search.html" not in {str(page) for page in pages}, "a page of that name would replace the site's own search"


@pytest.mark.parametrize("number", range(4))
def test_the_examples_of_the_page_on_extending_run(number):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text("utf-8"), re.DOTALL)
    assert len(examples) == 4
    done = subprocess.run([sys.executable, "-c", examples[number]], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_listing_of_the_page_on_a_token_is_the_programs():
    spec = importlib.util.spec_from_file_location("step", ROOT / "bench" / "step.py")
    step = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(step)
    program = {_without_numbers(format_op(op)) for op in step.program().ops}
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "docs" / "token.md").read_text("utf-8"), re.DOTALL)
    listed = [line for block in blocks for line in block.splitlines() if not line.startswith(("unmask", " "))]
    assert len(listed) > 35
    assert [line for line in listed if _without_numbers(line) not in program] == []


def _without_numbers(line):
    """An instruction without the numbers of its registers and semaphores, which the compiler chooses anew for every change."""
    return re.sub(r"\br\d+", "r", line.split(" wait=")[0].split(" signal=")[0])


def test_the_example_of_the_readme_runs():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"[\d]+ cycles, \{'setup'", done.stdout)


def test_links_between_documents_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
