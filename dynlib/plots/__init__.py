"""What the notebooks plot: functions from a table to a figure."""

from dynlib.plots.claims import sensitivity_strips
from dynlib.plots.design import factor_panels, retrained_panels, trade_off_panels
from dynlib.plots.efficiency import computation_over_radius, cost_ratio_panels, success_over_cost
from dynlib.plots.exits import accuracy_cost, calibration_lines, easy_to_hard, leaving_bars, overthinking_bars
from dynlib.plots.gallery import exit_gallery
from dynlib.plots.robustness import robustness_panels
from dynlib.plots.schematic import architecture, schematic
from dynlib.plots.surface import (
    attack_name,
    objective_panels,
    outcome_bars,
    published_panels,
    surface_panels,
    transfer_matrices,
    vulnerability_dots,
)
from dynlib.plots.transfer import backbone_panels, difference_panels, rate_matrices, rate_panels, reading_panels

__all__ = [
    "accuracy_cost",
    "architecture",
    "attack_name",
    "backbone_panels",
    "calibration_lines",
    "computation_over_radius",
    "cost_ratio_panels",
    "difference_panels",
    "easy_to_hard",
    "exit_gallery",
    "factor_panels",
    "leaving_bars",
    "objective_panels",
    "outcome_bars",
    "overthinking_bars",
    "published_panels",
    "rate_matrices",
    "rate_panels",
    "reading_panels",
    "retrained_panels",
    "robustness_panels",
    "schematic",
    "sensitivity_strips",
    "success_over_cost",
    "surface_panels",
    "trade_off_panels",
    "transfer_matrices",
    "vulnerability_dots",
]
