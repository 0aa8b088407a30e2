"""What the notebooks plot: functions from a table to a figure."""

from dynlib.plots.claims import sensitivity_strips, story
from dynlib.plots.design import ATTACKERS, OUTCOMES, factor_panels, retrained_panels, trade_off_panels
from dynlib.plots.designs_attacked import two_attackers
from dynlib.plots.efficiency import computation_over_radius, success_over_cost, success_panels
from dynlib.plots.exits import accuracy_cost, calibration_lines, easy_to_hard, leaving_bars, overthinking_bars
from dynlib.plots.gallery import exit_gallery
from dynlib.plots.learning import learning_curves
from dynlib.plots.lotteries import price_panels
from dynlib.plots.mechanisms import rule_curves
from dynlib.plots.pooled import forest, source_look, source_name
from dynlib.plots.robustness import robustness_panels
from dynlib.plots.schematic import architecture, schematic
from dynlib.plots.skipping import saving_lines, skipping_panels
from dynlib.plots.slowdown import accuracy_efficacy, answered_curves
from dynlib.plots.surface import (
    attack_name,
    objective_panels,
    outcome_bars,
    published_panels,
    surface_panels,
    transfer_matrices,
    vulnerability_dots,
)
from dynlib.plots.transfer import backbone_panels, direction_panels, rate_matrices, rate_panels, reading_panels

__all__ = [
    "ATTACKERS",
    "OUTCOMES",
    "accuracy_cost",
    "accuracy_efficacy",
    "answered_curves",
    "architecture",
    "attack_name",
    "backbone_panels",
    "calibration_lines",
    "computation_over_radius",
    "direction_panels",
    "easy_to_hard",
    "exit_gallery",
    "factor_panels",
    "forest",
    "learning_curves",
    "leaving_bars",
    "objective_panels",
    "outcome_bars",
    "overthinking_bars",
    "price_panels",
    "published_panels",
    "rate_matrices",
    "rate_panels",
    "reading_panels",
    "retrained_panels",
    "robustness_panels",
    "rule_curves",
    "saving_lines",
    "schematic",
    "sensitivity_strips",
    "skipping_panels",
    "source_look",
    "source_name",
    "story",
    "success_over_cost",
    "success_panels",
    "surface_panels",
    "trade_off_panels",
    "transfer_matrices",
    "two_attackers",
    "vulnerability_dots",
]
