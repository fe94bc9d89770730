"""VUS-PR straight from its definition: one threshold, one width and one point at a time."""

import numpy as np


def regions(labels):
    found, begin = [], None
    for k, label in enumerate([*labels, 0]):
        if label and begin is None:
            begin = k
        if not label and begin is not None:
            found.append((begin, k - 1))
            begin = None
    return found


def soft_labels(labels, width):
    soft = [float(label) for label in labels]
    for begin, last in regions(labels):
        for d in range(1, width // 2 + 1):
            for k in (begin - d, last + d):
                if 0 <= k < len(soft):
                    soft[k] += (1 - d / width) ** 0.5
    return [min(1.0, value) for value in soft]


def widened(labels, width):
    half, merged = width // 2, []
    for begin, last in regions(labels):
        low, high = max(begin - half, 0), min(last + half, len(labels) - 1)
        if merged and begin - half <= merged[-1][2] + half:
            merged[-1][1:] = [high, last]
        else:
            merged.append([low, high, last])
    return [(low, high) for low, high, _last in merged]


def vus_pr(labels, scores, window, thresholds=250):
    labels, scores = list(labels), list(scores)
    n, positives = len(labels), sum(labels)
    ranked = sorted(scores, reverse=True)
    levels = [ranked[int(i)] for i in np.linspace(0, n - 1, thresholds)]
    areas = []
    for width in range(window + 1):
        soft, segments = soft_labels(labels, width), widened(labels, width)
        area = before = 0.0
        for level in levels:
            alarmed = [score >= level for score in scores]
            slope = sum(soft[k] for k in range(n) if alarmed[k] and not labels[k])
            found = sum(1 for k in range(n) if alarmed[k] and labels[k]) + slope
            touched = sum(any(alarmed[low : high + 1]) for low, high in segments) / len(segments)
            expected = (positives + positives + slope) / 2
            recall = min(found / expected, 1) * touched
            area += (recall - before) * found / sum(alarmed)
            before = recall
        areas.append(area)
    return sum(areas) / len(areas)
