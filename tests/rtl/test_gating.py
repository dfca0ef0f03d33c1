"""Clocks of their own: the right parts get them, and nothing else changes."""

import re

import pytest

from unmask.errors import UnmaskError
from unmask.rtl.lockstep.gating import with_clocks

RTLIL = r"""attribute \top 1
module \top
  wire width 1 input 0 \clk
  cell \top.engine \engine
    connect \clk \clk
    connect \a \a
  end
end
module \top.engine
  wire width 1 input 0 \clk
  cell \top.engine.lane \first
    connect \clk \clk
  end
  cell \top.engine.lane \second
    connect \clk \clk
  end
  cell \top.engine.wires \wires
    connect \a \a
  end
end
module \top.engine.lane
  wire width 1 input 0 \clk
end
module \top.engine.wires
end
"""


def test_a_clock_goes_down_to_its_part_and_to_no_other() -> None:
    text = with_clocks(RTLIL, "top", {"fast": ("engine", "first"), "slow": ("engine", "second")})
    assert text.count(r"connect \clk \fast") == 1
    assert text.count(r"connect \clk \slow") == 1
    assert re.search(r"cell \\top.engine.lane \\first\n    connect \\clk \\fast\n", text)
    assert re.search(r"cell \\top.engine.lane \\second\n    connect \\clk \\slow\n", text)
    assert text.count(r" \fast" + "\n") == 4, "an input of two modules, a connection to either part"
    assert r"connect \clk \clk" in text, "the engine keeps its own"
    without = "".join(line for line in text.splitlines(True) if "fast" not in line and "slow" not in line)
    assert without == RTLIL.replace("first\n    connect \\clk \\clk\n", "first\n").replace("second\n    connect \\clk \\clk\n", "second\n")


@pytest.mark.parametrize("path", [("engine", "third"), ("engine", "wires"), ("other",)])
def test_a_part_that_is_not_there_or_has_no_clock_is_refused(path: tuple[str, ...]) -> None:
    with pytest.raises(UnmaskError, match=r"no clocked part " + ".".join(path)):
        with_clocks(RTLIL, "top", {"fast": path})
