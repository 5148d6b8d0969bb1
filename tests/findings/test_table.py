"""The table of findings and its JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from nst_lightning.findings import as_json, as_markdown, check
from tests.findings.builders import BEST, around, sweep


def test_tables(tmp_path: Path) -> None:
    sweep(tmp_path, around(0.5, 0.3, 0.1))
    findings = check([BEST, replace(BEST, id="none", claim="this|that", figure="none")], tmp_path)
    lines = as_markdown(findings).splitlines()
    assert lines[0].startswith(
        "| finding | the study's claim | prediction | pairs | effect | p | corrected | verdict |"
    )
    one = findings[0]
    shown = f"| 12 | {one.effect:.3f} [{one.low:.3f}, {one.high:.3f}] | {one.p:.3g} | {one.p:.3g} | **agrees** |"
    assert lines[2].startswith("| `best` | A is best. | overall is higher for init a than for b, c " + shown)
    assert lines[3].startswith(r"| `none` | this\|that | ")
    assert "| 0 | n/a | n/a | n/a | **not run here** | there is no none/results.json |" in lines[3]
    read = json.loads(as_json(findings))["findings"]
    assert read[0] == vars(one)
    assert read[1]["effect"] is None and read[1]["verdict"] == "not run here"
    only_one = as_markdown(check([BEST], sweep(tmp_path, [[0.2, 0.1, 0.1]])))
    assert "| 1 | 0.100 | n/a | n/a | **undecided** |" in only_one  # no interval of one pair
