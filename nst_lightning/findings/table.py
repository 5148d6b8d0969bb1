"""Findings as a table to read and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from nst_lightning.findings.statistics import ALPHA
from nst_lightning.findings.verdicts import Finding


def as_markdown(findings: Sequence[Finding]) -> str:
    """Returns findings as a Markdown table, and below it what its columns are."""
    heads = ("finding", "the study's claim", "prediction", "pairs", "effect", "p", "corrected", "verdict", "why")
    rows = [
        (
            f"`{finding.id}`",
            finding.claim,
            finding.prediction,
            str(finding.n),
            _effect(finding),
            _p(finding.p),
            _p(finding.corrected),
            f"**{finding.verdict}**",
            finding.why,
        )
        for finding in findings
    ]
    lines = [heads, ("---",) * len(heads), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", _LEGEND]) + "\n"


_LEGEND = (
    "The effect is a mean over pairs with its 95 % t interval: a paired difference (one-sided paired t "
    "test), to the strongest rival where there are several; Kendall's tau-b for a trend (Page's test); for no "
    "difference, the largest one with its 90 % interval (two one-sided t tests). p is one-sided and corrected by "
    f"Holm's method over all findings that were run; below {ALPHA:g} a finding agrees. It disagrees where the interval "
    "is wholly on the other side."
)


def as_json(findings: Sequence[Finding]) -> str:
    """Returns findings as JSON: {"findings": [...]}, NaN as null."""
    plain = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(each).items()}
        for each in findings
    ]
    return json.dumps({"findings": plain}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _effect(finding: Finding) -> str:
    if math.isnan(finding.effect):
        return "n/a"
    ends = "" if math.isnan(finding.low) else f" [{finding.low:.3f}, {finding.high:.3f}]"
    return f"{finding.effect:.3f}{ends}"


def _p(p: float) -> str:
    return "n/a" if math.isnan(p) else f"{p:.3g}"
