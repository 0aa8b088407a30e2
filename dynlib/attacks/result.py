"""What an attack made of a batch, and how the results of several starts become one."""

import warnings
from typing import NamedTuple

from torch import Tensor


class AttackResult(NamedTuple):
    """What an attack made of a batch.

    ``adversarial`` float32 ``[batch, 3, side, side]`` in [0, 1]; ``reached`` bool ``[batch]``: the returned image reaches the
    attack's goal, found out anew in float32; ``steps`` int64 ``[batch]``: gradient steps made; ``macs`` int64 ``[batch]``:
    multiply-accumulates of the attack's forward and backward passes, and of finding out which exit a clean image takes where the
    loss asks. A backward pass to the image counts as much as its forward pass, which holds to within 1 %. The last check is not
    counted. ``stuck`` bool ``[batch]``: steps were made, and at each of them the gradient was zero on every pixel. Such an image
    was not attacked at all, and says nothing about robustness.
    """

    adversarial: Tensor
    reached: Tensor
    steps: Tensor
    macs: Tensor
    stuck: Tensor

    def merged(self, other: "AttackResult", again: Tensor) -> "AttackResult":
        """With one more start, made of the images with indices ``again``: each image's first that reaches the goal is kept."""
        adversarial, reached, steps, macs, stuck = (part.clone() for part in self)
        won = other.reached & ~self.reached[again]
        adversarial[again[won]] = other.adversarial[won]
        reached[again] |= other.reached
        moved = ((self.steps > 0) & ~self.stuck)[again] | ((other.steps > 0) & ~other.stuck)
        steps[again] += other.steps
        macs[again] += other.macs
        stuck[again] = (steps[again] > 0) & ~moved
        return AttackResult(adversarial, reached, steps, macs, stuck)

    def warned(self) -> "AttackResult":
        """The result itself; warns once if images were stuck."""
        if self.stuck.any():
            text = f"{int(self.stuck.sum())} of {len(self.stuck)} images: the gradient was zero on every pixel at every step"
            warnings.warn(f"{text}; this is no robustness", stacklevel=3)
        return self
