"""Estimates: a number, its 95 % interval and n.

Shares of independent trials get Wilson's interval; everything else a percentile bootstrap. Questions about one fact
are not independent: give the facts as `clusters` and whole clusters are drawn. Arms compared on the same questions
are paired: `difference` draws the questions, not the arms. Where too few clusters differ for a bootstrap to learn from
(`SPARSE`), differences of shares get an interval from Wilson's, which is never empty: seeing no difference is not the
same as knowing that there is none.
"""

import functools
import re
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit
from scipy.stats import binomtest

Clusters = Collection[Hashable]  # the name of each value's cluster

BLOCK = 4_000_000  # draws held in memory at once
SPARSE = 10  # with fewer clusters that differ, all of one sign, a bootstrap interval would often end at 0 by chance


class Estimate(NamedTuple):
    """A number with its 95 % interval and n.

    `f"{estimate}"` reads 0.95 [0.93, 0.97], n = 120; a format such as `.1%` applies to the three numbers.
    """

    value: float
    low: float
    high: float
    n: int  # observations; 0: an exact count, which has no interval

    def __format__(self, spec: str) -> str:
        size = max(abs(number) for number in self[:3])
        spec = spec or (self._decimals() if size < 10 else ",.6g" if self.n == 0 else ",.1f" if size < 1000 else ",.0f")
        value, low, high = (_signed(number, spec) for number in self[:3])
        return value if self.n == 0 else f"{value} [{low}, {high}], n = {self.n}"

    def _decimals(self) -> str:
        """Choose two to four decimals, so that an interval that excludes 0 is not shown with an end at 0.00."""
        ends = (self.low, self.high) if self.low > 0 or self.high < 0 else ()
        return next((spec for spec in (".2f", ".3f") if all(float(format(end, spec)) for end in ends)), ".4f")

    def __str__(self) -> str:
        return format(self, "")

    @property
    def brief(self) -> str:
        """The estimate as text without its n, for tables that give n once."""
        return str(self).split(", n")[0]


def _signed(number: float, spec: str) -> str:
    """Format a number with a minus sign instead of a hyphen, and unsigned where only zeros are shown."""
    text = format(number, spec)
    return text.replace("-", "\N{MINUS SIGN}" if re.search("[1-9]", text) else "")


def exact(value: float) -> Estimate:
    """Make the estimate of a count that was not sampled: no interval, n = 0."""
    return Estimate(value, value, value, 0)


def share(successes: int, n: int) -> Estimate:
    """Estimate the share of successes in `n` independent trials, 0–1, with Wilson's 95 % interval (Wilson 1927)."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials: give n of at least 1 and 0 to n successes.")
    return _wilson(successes / n, n)


def mean(values: ArrayLike, clusters: Clusters | None = None, seed: int = 0, resamples: int = 2000) -> Estimate:
    """Estimate the mean of `values` [n]; `clusters` [n] names each value's cluster (None: each is its own).

    Values that are all 0 or all 1 give a bootstrap nothing to draw from; they get Wilson's interval with one trial a
    cluster, which is the most cautious reading.
    """
    sums, counts = _clustered(values, clusters)
    value, n = sums.sum() / counts.sum(), int(counts.sum())
    if value in (0.0, 1.0) and np.isin(values, (0.0, 1.0)).all():
        return share(round(value) * len(sums), len(sums))._replace(n=n)
    return _interval(value, _resample_from(seed, sums, counts, resamples), n)


def difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Clusters | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """Estimate mean(a) − mean(b) of two arms on the same `n` items [n], resampled as pairs.

    `clusters` as in `mean`. Where fewer than `SPARSE` clusters differ in a share, the interval also covers that of the
    share of clusters that gain minus the share that lose (`difference_of_shares`). Other values that all differ by the
    same have no interval: both ends are the value.
    """
    a, b = _numbers(a), _numbers(b)
    if a.shape != b.shape:
        raise ValueError(f"Arms of {a.size} and {b.size} values: pairs need equal numbers; for two groups use gap.")
    sums, counts = _clustered(a - b, clusters)
    found = _interval(sums.sum() / counts.sum(), _resample_from(seed, sums, counts, resamples), a.size)
    if np.count_nonzero(sums) < SPARSE and _are_shares(a, b):
        return _covering(
            found, difference_of_shares(*(share(int(side.sum()), len(sums)) for side in (sums > 0, sums < 0)))
        )
    return found


def gap(
    a: ArrayLike,
    b: ArrayLike,
    clusters_a: Clusters | None = None,
    clusters_b: Clusters | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """Estimate mean(a) − mean(b) of two separate groups, each resampled by itself; n is the smaller group's.

    Where one group of shares, or of their changes (−1 to 1), has fewer than `SPARSE` clusters off 0, or off 1, the
    interval also covers that from Wilson's of both groups with one trial a cluster (`difference_of_shares`).
    """
    a, b, rng = _numbers(a), _numbers(b), np.random.default_rng(seed)
    groups = [_clustered(a, clusters_a), _clustered(b, clusters_b)]
    value_a, value_b = (sums.sum() / counts.sum() for sums, counts in groups)
    drawn_a, drawn_b = (_resample(sums, counts, rng, resamples) for sums, counts in groups)
    found = _interval(value_a - value_b, drawn_a - drawn_b, int(min(counts.sum() for _, counts in groups)))
    if max(np.abs(a).max(), np.abs(b).max()) <= 1 and any(_is_sparse(sums, counts) for sums, counts in groups):
        return _covering(found, difference_of_shares(_cautious(a, len(groups[0][0])), _cautious(b, len(groups[1][0]))))
    return found


def slope(
    doses: ArrayLike,
    responses: ArrayLike,
    clusters: Clusters | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """Estimate the least-squares slope of responses [n] on doses [n]; `clusters` as in `mean`."""
    x, y = _numbers(doses), _numbers(responses)
    if x.shape != y.shape:
        raise ValueError(f"{x.size} doses for {y.size} responses: give one dose for each response.")
    if np.ptp(x) == 0:
        raise ValueError(f"All {x.size} doses are {x[0]:g}: a slope needs two doses or more.")
    x = x - x.mean()  # so that large doses do not swamp their differences

    def fitted(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        sx, sy, sxy, sxx = sums / counts
        spread = sxx - sx * sx
        alike = spread <= 1e-9 * sxx  # a draw in which all doses are equal, up to rounding, has no slope
        return np.where(alike, np.nan, (sxy - sx * sy) / np.where(alike, 1, spread))

    clustered = [_clustered(part, clusters) for part in (x, y, x * y, x * x)]
    return _of_sums(fitted, clustered, np.random.default_rng(seed), resamples)


def over_runs(values: ArrayLike) -> Estimate:
    """Estimate the mean over runs (seeds) with Student's 95 % interval; n is the number of runs, two or more."""
    values = _numbers(values)
    if values.size < 2:
        raise ValueError("One run says nothing about the spread over runs: give two or more.")
    half = stdtrit(values.size - 1, 0.975) * values.std(ddof=1) / values.size**0.5
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half), int(values.size))


def jackknife(value: float, without: ArrayLike, n: int) -> Estimate:
    """Estimate a statistic with the jackknife's 95 % interval.

    `without` are the statistic's values with each cluster left out in turn. For what the bootstrap distorts: a count of
    different things, say, since a draw with replacement contains fewer. `n` is the number of observations; two clusters
    or more (Efron and Stein 1981).
    """
    without = _numbers(without)
    if without.size < 2:
        raise ValueError("One cluster says nothing about the spread over clusters: give two or more.")
    half = ndtri(0.975) * ((without.size - 1) / without.size * ((without - without.mean()) ** 2).sum()) ** 0.5
    return Estimate(float(value), float(value - half), float(value + half), int(n))


def detectable(estimate: Estimate) -> float:
    """Compute the smallest true difference that a sample with this interval detects with 80 % power.

    From the interval's width: 1.96 standard errors for the test at 5 % and 0.84 for the power (normal approximation).
    """
    return float((estimate.high - estimate.low) / (2 * ndtri(0.975)) * (ndtri(0.975) + ndtri(0.8)))


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Compute the exact two-sided p of two arms right equally often on the same items (McNemar 1947).

    It is 1 if they agree on every item.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"Arms of {a.size} and {b.size} items: give the same items.")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def kappa(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Clusters | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """Estimate Cohen's kappa of two yes/no verdicts on the same n items [n] (Cohen 1960).

    It is 1 if they agree, 0 if they agree as often as by chance; `clusters` as in `mean`. Raises ValueError where one
    of the two gives one verdict on all items.
    """
    a, b = _numbers(a), _numbers(b)
    if a.shape != b.shape:
        raise ValueError(f"Verdicts on {a.size} and {b.size} items: give the same items.")
    if min(np.ptp(a), np.ptp(b)) == 0:
        raise ValueError("One of the two always says the same: there is no agreement to speak of.")

    def fitted(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        p, q, alike = sums / counts
        chance = p * q + (1 - p) * (1 - q)
        undefined = chance == 1  # a draw in which both always say the same
        return np.where(undefined, np.nan, (alike - chance) / np.where(undefined, 1, 1 - chance))

    clustered = [_clustered(part, clusters) for part in (a, b, (a == b) * 1.0)]
    return _of_sums(fitted, clustered, np.random.default_rng(seed), resamples)


def holm(p: ArrayLike) -> np.ndarray:
    """Adjust p-values for their number (Holm 1979), in their order: reject where one is below the desired level."""
    p = _numbers(p)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _numbers(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"Values of shape {array.shape}: give one row of at least one finite number.")
    return array


def _wilson(p: float, n: int) -> Estimate:
    """Compute Wilson's interval of a share p of n trials; p need not be a whole number of n-ths."""
    z2 = float(ndtri(0.975)) ** 2
    scale = 1 + z2 / n
    middle = (p + z2 / (2 * n)) / scale
    half = (z2 * (p * (1 - p) / n + z2 / (4 * n * n))) ** 0.5 / scale
    low = 0.0 if p == 0 else middle - half  # exact at the ends, where rounding would miss by 1e-17
    high = 1.0 if p == 1 else middle + half
    return Estimate(float(p), float(low), float(high), int(n))


def difference_of_shares(a: Estimate, b: Estimate) -> Estimate:
    """Compute a − b of two shares from their own intervals (variance estimates recovery, Newcombe 1998)."""
    value = a.value - b.value
    low = value - ((a.value - a.low) ** 2 + (b.high - b.value) ** 2) ** 0.5
    high = value + ((a.high - a.value) ** 2 + (b.value - b.low) ** 2) ** 0.5
    return Estimate(float(value), float(low), float(high), min(a.n, b.n))


def _cautious(values: ArrayLike, clusters: int) -> Estimate:
    """Estimate the mean of shares, or of changes of shares (gains minus losses), by Wilson's intervals.

    The intervals are those of `clusters` trials.
    """
    gains, losses = (np.clip(sign * np.asarray(values, dtype=float), 0, None).mean() for sign in (1, -1))
    gain = _wilson(gains, clusters)
    return difference_of_shares(gain, _wilson(losses, clusters)) if np.min(values) < 0 else gain


def _covering(found: Estimate, other: Estimate) -> Estimate:
    """Widen the interval of an estimate to cover another's too."""
    return found._replace(low=min(found.low, other.low), high=max(found.high, other.high))


def _are_shares(*groups: np.ndarray) -> bool:
    return all(np.min(values) >= 0 and np.max(values) <= 1 for values in groups)


def _is_sparse(sums: np.ndarray, counts: np.ndarray) -> bool:
    """Test whether fewer than `SPARSE` clusters are off 0, or off 1."""
    return bool(min(np.count_nonzero(sums), np.count_nonzero(sums != counts)) < SPARSE)


def _clustered(values: ArrayLike, clusters: Clusters | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count the values by cluster [cluster]."""
    values = _numbers(values)
    if clusters is None:
        return values, np.ones(values.size)
    if len(clusters) != values.size:
        raise ValueError(f"{len(clusters)} cluster names for {values.size} values: name the cluster of each value.")
    number: dict[Hashable, int] = {}
    index = np.array([number.setdefault(name, len(number)) for name in clusters])
    return np.bincount(index, weights=values), np.bincount(index).astype(float)


def _resample(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Compute the means of `resamples` draws of as many clusters as there are, with replacement [resamples]."""
    means, rows = [], max(1, BLOCK // len(sums))
    for start in range(0, resamples, rows):
        drawn = rng.integers(len(sums), size=(min(rows, resamples - start), len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    return np.concatenate(means)


def _of_sums(
    fitted: Callable[[np.ndarray, np.ndarray], np.ndarray],
    clustered: Sequence[tuple[np.ndarray, np.ndarray]],
    rng: np.random.Generator,
    resamples: int,
) -> Estimate:
    """Estimate a statistic `fitted(sums [part, ..], counts [..])` of sums over the same items, by cluster."""
    sums, counts = np.stack([part for part, _ in clustered]), clustered[0][1]
    drawn = rng.integers(len(counts), size=(resamples, len(counts)))
    values = fitted(sums[:, drawn].sum(2), counts[drawn].sum(1))
    return _interval(float(fitted(sums.sum(1), counts.sum())), values[np.isfinite(values)], int(counts.sum()))


def _resample_from(seed: int, sums: np.ndarray, counts: np.ndarray, resamples: int) -> np.ndarray:
    """Apply `_resample` with the draws of a seed, shared by many numbers on the same clusters."""
    if len(sums) * resamples > BLOCK:
        return _resample(sums, counts, np.random.default_rng(seed), resamples)
    times = _times_drawn(seed, len(sums), resamples)
    return (times @ sums) / (times @ counts)


@functools.lru_cache(maxsize=4)
def _times_drawn(seed: int, clusters: int, resamples: int) -> np.ndarray:
    """Count how often each cluster is in each draw [resamples, cluster]."""
    drawn = np.random.default_rng(seed).integers(clusters, size=(resamples, clusters))
    return np.stack([np.bincount(row, minlength=clusters) for row in drawn]).astype(float)


def _interval(value: float, drawn: np.ndarray, n: int) -> Estimate:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Estimate(float(value), float(low), float(high), int(n))


def ratio(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Clusters | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """Estimate mean(a) / mean(b) on the same `n` items [n], resampled as pairs; `clusters` as in `mean`.

    Draws in which b's mean is not above 0 have no ratio and are left out; where these are many the interval says
    little, so ask first whether b's own interval lies above 0. Raises ValueError if its mean does not.
    """
    a, b = _numbers(a), _numbers(b)
    if a.shape != b.shape:
        raise ValueError(f"Arms of {a.size} and {b.size} values: a ratio of pairs needs equal numbers.")
    if b.mean() <= 0:
        raise ValueError(f"The mean below the line is {b.mean():g}: a ratio needs one above 0.")
    above, counts = _clustered(a, clusters)
    below, _ = _clustered(b, clusters)
    drawn_a, drawn_b = (_resample_from(seed, sums, counts, resamples) for sums in (above, below))
    there = drawn_b > 0
    return _interval(above.sum() / below.sum(), drawn_a[there] / drawn_b[there], a.size)
