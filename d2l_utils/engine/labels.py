"""Words at the ends of lines that keep clear of each other."""

import numpy as np
from matplotlib.text import Annotation


def apart(heights, gap):
    """The heights moved as little as needed (least squares) for neighbours to be `gap` apart, order kept."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(order))
    free = np.asarray(heights, float)[order] - steps
    pooled = [max(min(free[i:k].mean() for k in range(j + 1, len(free) + 1)) for i in range(j + 1))
              for j in range(len(free))]
    moved = np.empty(len(free))
    moved[order] = pooled + steps
    return moved


class EndLabel(Annotation):
    """A word to the right of a line's last point; those of the same axes move apart when they are drawn."""

    def update_positions(self, renderer):
        labels = [text for text in self.axes.texts if isinstance(text, EndLabel)]
        self.axes.get_xlim(), self.axes.get_ylim()              # settled now: matplotlib puts it off until it draws
        ends = self.axes.transData.transform([label.xy for label in labels])[:, 1]
        clear = apart(ends.clip(self.axes.bbox.y0, self.axes.bbox.y1), renderer.points_to_pixels(1.2 * self.get_size()))
        self.set_y((clear - ends)[labels.index(self)] / renderer.points_to_pixels(1))
        super().update_positions(renderer)
