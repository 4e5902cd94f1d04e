"""What is said of two days whose truth is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from trials import TEMPLATE, run, series, simulated

from bench.comparisons import unpaired
from bench.comparisons.campaign import plan
from bench.regressions import regression, yardsticks
from bench.regressions.baseline import Measured
from bench.regressions.held import HELD
from bench.regressions.regression import Finding, judge
from bench.regressions.yardsticks import AS_MEASURED, OTHERS

BLOCKS = 8
RUNS = 3 * BLOCKS
SERIES = Path(__file__).parent / "series"


def finding(found: tuple[Finding, ...], metric: str = "epoch_s", cell: str = "a") -> Finding:
    return next(f for f in found if (f.metric.key, f.cell) == (metric, cell))


def worse(found: tuple[Finding, ...], cell: str) -> bool:
    return any(f.worse for f in found if f.cell == cell)


def day(*values: float, control: bool = True, **changes) -> list[Measured]:
    """One cell and, in the same blocks, its control with the same values."""
    runs = [run([value], block=block, **changes) for block, value in enumerate(values)]
    again = [run([value], block=block, control=True, **changes) for block, value in enumerate(values)]
    return runs + (again if control else [])


QUIET = (1.0, 1.01, 0.99, 1.02, 0.98, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_rank_sum_test_is_that_of_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    before, now = random.random(3 + seed).tolist(), (random.random(8 - seed) + 0.2).tolist()
    expected = mannwhitneyu(before, now, method="exact").pvalue
    assert unpaired.rank_p(before, now) == pytest.approx(expected)


def test_equal_values_share_their_rank() -> None:
    # Ranks 2 2 2 | 4 5 6.5 6.5 ... by hand: 1 1 | 1 2 gives ranks 2 2 | 2 4; of 6 choices of two, sums 4 4 6 4 6 6.
    assert unpaired.rank_p([1, 1], [1, 2]) == 1.0
    assert unpaired.rank_p([1, 1, 1], [2, 2, 2]) == pytest.approx(2 / 20)


def test_runs_needed_are_those_that_can_show_anything() -> None:
    assert [unpaired.runs_needed(n) for n in (1, 2, 6, 7)] == [4, 5, 5, 6]


def test_a_ratio_is_that_of_medians_and_its_interval_holds_it() -> None:
    found = unpaired.compare([1.0, 2.0, 3.0, 100.0, 1.5], [2.0, 4.0, 6.0, 3.0, 200.0])
    assert found.ratio == pytest.approx(4 / 2)
    assert found.interval.low < 2 < found.interval.high


def test_fifteen_percent_are_flagged_and_equal_code_is_not() -> None:
    slower = judge(day(*QUIET), day(*(1.15 * value for value in QUIET)))
    assert finding(slower).verdict == "slower"
    assert finding(slower).ratio == pytest.approx(1.15)
    assert finding(slower).p == pytest.approx(2 / 924)
    equal = judge(day(*QUIET), day(*reversed(QUIET)))
    assert finding(equal).verdict == "no change shown"
    assert not worse(equal, "a")


def test_an_improvement_is_told_and_is_no_regression() -> None:
    found = finding(judge(day(*QUIET), day(*(0.8 * value for value in QUIET))))
    assert (found.verdict, found.worse) == ("faster", False)


def test_a_slower_machine_is_not_taken_for_slower_code() -> None:
    found = judge(day(*QUIET, speed=1.0), day(*(1.2 * value for value in QUIET), speed=1.2))
    assert not worse(found, "a")


def test_a_faster_machine_hides_no_regression_of_what_keeps_the_processor_busy() -> None:
    before, now = day(*QUIET, cpu_share=0.98), day(*(1.15 * 0.85 * v for v in QUIET), speed=0.85, cpu_share=0.98)
    assert finding(judge(before, now)).verdict == "slower"
    # Of what mostly waits it is not known whether the machine would have made it faster.
    waiting = judge(day(*QUIET, cpu_share=0.3), day(*(1.15 * 0.85 * v for v in QUIET), speed=0.85, cpu_share=0.3))
    assert finding(waiting).verdict == "no change shown"
    assert "do not agree" in finding(waiting).reason


def test_a_calibration_that_explains_nothing_is_left_out() -> None:
    noisy = [[1.0, 1.0, 3.0], [1.0, 1.0, 0.3], [1.0, 1.0, 2.0], [1.0, 1.0, 0.5], [1.0, 1.0, 1.0], [1.0, 1.0, 4.0]]
    before = [
        run([v], block=b, control=c, speed=s)
        for c in (False, True)
        for b, (v, s) in enumerate(zip(QUIET, noisy, strict=True))
    ]
    now = [
        run([1.15 * v], block=b, control=c, speed=s)
        for c in (False, True)
        for b, (v, s) in enumerate(zip(QUIET, noisy[::-1], strict=True))
    ]
    assert finding(judge(before, now)).verdict == "slower"


def test_what_explains_the_runs_of_a_day_best_is_said() -> None:
    drift = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
    runs = [
        run([s * q], block=b, control=c, speed=[1.0, s, 1.0])
        for c in (False, True)
        for b, (s, q) in enumerate(zip(drift, QUIET, strict=True))
    ]
    found = finding(judge(runs, runs))
    assert found.by == "decode"
    assert finding(judge(day(*QUIET), day(*QUIET))).by in (AS_MEASURED, "copy", "decode", "loop")


def test_p_is_that_of_the_calibration_that_shows_least() -> None:
    before = day(*QUIET)
    now = [
        run([1.15 * value], block=block, control=control, speed=[1.0, 1.0, 1.2 if block == 0 else 1.0])
        for control in (False, True)
        for block, value in enumerate(QUIET)
    ]
    # Per loop, one of six runs falls among those of the first day.
    found = finding(judge(before, now))
    per_loop = unpaired.rank_p(QUIET, [1.15 / 1.2 * QUIET[0], *(1.15 * value for value in QUIET[1:])])
    assert found.p == pytest.approx(per_loop)
    assert per_loop > 2 / 924


def test_less_than_the_effect_asked_for_is_no_regression() -> None:
    before, now = day(*QUIET), day(*(1.08 * value for value in QUIET))
    assert finding(judge(before, now)).verdict == "slower"
    found = finding(judge(before, now, effect=0.1))
    assert (found.verdict, found.reason) == ("no change shown", "it is below 10%")


def test_within_what_equal_runs_differ_by_nothing_is_claimed() -> None:
    now = day(*(1.1 * value for value in QUIET), control=False)
    now += [run([1.3 * value], block=block, control=True) for block, value in enumerate(QUIET)]
    found = finding(judge(day(*QUIET), now))
    assert (found.verdict, found.reason) == ("no change shown", "it is within what equal runs differ by")
    assert found.floor == pytest.approx(1.3 / 1.1 - 1)


def test_without_a_control_nothing_is_claimed_of_times() -> None:
    found = judge(day(*QUIET, control=False), day(*(1.5 * value for value in QUIET), control=False))
    assert "no control" in finding(found).reason


def test_too_few_runs_say_how_many_are_needed() -> None:
    found = finding(judge(day(1.0, 1.01, 0.99), day(2.0, 2.01, 1.99)))
    assert found.verdict == "no change shown"
    assert "3 runs cannot show any change" in found.reason


def test_one_call_more_is_a_regression_and_a_byte_of_the_harness_is_none() -> None:
    before, now = day(*QUIET, calls=100, call_bytes=5_000_000), day(*QUIET, calls=101, call_bytes=5_000_003)
    found = judge(before, now)
    assert finding(found, "read_calls").verdict == "more"
    assert finding(found, "read_calls").held_exactly
    assert finding(found, "read_call_mb").verdict == "equal"
    assert finding(judge(now, before), "read_calls").verdict == "less"


def test_one_run_of_a_day_shows_no_counter_to_be_exact() -> None:
    one, two = day(1.0, calls=100, control=False), day(1.0, 1.01, calls=101, control=False)
    for before, now in ((one, two), (two, one), (one, one)):
        found = finding(judge(before, now), "read_calls")
        assert (found.verdict, found.held_exactly) == ("not held", False)
        assert "one run cannot show" in found.reason
    assert finding(judge(two, two), "read_calls").held_exactly
    # A control is an equal run, too.
    assert finding(judge(day(1.0, calls=100), day(1.0, calls=101)), "read_calls").verdict == "more"


def test_a_counter_that_varies_between_equal_runs_is_held_by_ratio() -> None:
    before = [run([v], block=b, control=c, calls=100 + b) for c in (False, True) for b, v in enumerate(QUIET)]
    now = [run([v], block=b, control=c, calls=103 + b) for c in (False, True) for b, v in enumerate(QUIET)]
    found = finding(judge(before, now), "read_calls")
    assert (found.verdict, found.held_exactly) == ("no change shown", False)


def with_calls(*counts: int, control: bool = True) -> list[Measured]:
    twice = (False, True) if control else (False,)
    return [run([1.0], block=b, control=c, calls=calls) for c in twice for b, calls in enumerate(counts)]


def test_what_was_zero_is_held_by_ranks() -> None:
    nothing, much = with_calls(0, 0, 0, 0, 0, 0), with_calls(1000, 1001, 1002, 1000, 1001, 1002)
    found = finding(judge(nothing, much), "read_calls")
    assert (found.verdict, found.ratio, found.held_exactly) == ("more", None, False)
    assert found.p == pytest.approx(2 / 924)
    assert finding(judge(much, nothing), "read_calls").verdict == "less"
    # One run that is like the other day's, be it the control's, and nothing is said.
    one_more = [*with_calls(0, 0, 0, 0, 0, 1000, control=False), *nothing]
    assert finding(judge(one_more, much), "read_calls").reason == "zero has no ratio"
    assert finding(judge([*nothing, run([1.0], control=True, calls=1000)], much), "read_calls").verdict == "not held"
    few = finding(judge(with_calls(0, 0), with_calls(1000, 1001)), "read_calls")
    assert (few.verdict, "cannot show any change" in few.reason) == ("no change shown", True)


def test_a_page_read_from_storage_is_none_of_the_store() -> None:
    cold = TEMPLATE.cache.model_copy(update={"asked": "cold", "achieved": "verified"})

    def read(read_bytes: int) -> list[Measured]:
        found = day(*QUIET, cache=cold)
        for measured in found:
            epochs = [
                e.model_copy(update={"io": e.io.model_copy(update={"storage_read_bytes": read_bytes})})
                for e in measured.record.epochs
            ]
            measured.record.epochs[:] = epochs
        return found

    assert finding(judge(read(0), read(4096)), "storage_read_mb").verdict == "not held"
    assert finding(judge(read(0), read(40_960)), "storage_read_mb").verdict == "more"


def test_memory_beyond_its_tolerance_is_flagged() -> None:
    def found(growth: float) -> str:
        before = [run([1.0], block=b, control=c, own_bytes=300_000_000 + b) for c in (False, True) for b in range(6)]
        now = [run([1.0], block=b, control=c, own_bytes=int(growth * 3e8) + b) for c in (False, True) for b in range(6)]
        return finding(judge(before, now), "own_mb").verdict

    assert (found(1.04), found(1.1)) == ("no change shown", "more")


def test_storage_bytes_are_held_only_where_the_cache_was_proved_cold() -> None:
    warm = TEMPLATE.cache.model_copy(update={"asked": "warm", "achieved": "verified"})
    found = finding(judge(day(*QUIET, cache=warm), day(*QUIET, cache=warm)), "storage_read_mb")
    assert found.verdict == "not held"
    assert "not proved cold" in found.reason
    cold = warm.model_copy(update={"asked": "cold"})
    assert finding(judge(day(*QUIET, cache=cold), day(*QUIET, cache=cold)), "storage_read_mb").verdict != "not held"


def test_waiting_is_held_where_there_is_anything_else_and_counts_only_if_it_matters() -> None:
    assert finding(judge(day(*QUIET), day(*QUIET)), "wait_s").verdict == "not held"

    def stall(before: float, now: float) -> Finding:
        days = (day(*QUIET, model="cnn", wait_share=share) for share in (before, now))
        return finding(judge(*days), "wait_s")

    assert stall(0.2, 0.4).verdict == "slower"
    assert "of an epoch" in stall(0.001, 0.002).reason


def test_times_that_cannot_be_held_leave_the_counters() -> None:
    found = judge(day(*QUIET), day(*(2 * v for v in QUIET), calls=200), times_not_held="another machine")
    assert (finding(found).verdict, finding(found).reason) == ("not held", "another machine")
    assert finding(found, "read_calls").verdict == "more"


def test_a_baseline_that_knows_a_store_by_its_size_alone_is_held_by_that() -> None:
    old = TEMPLATE.store.model_copy(update={"allocated_bytes": None})
    now = old.model_copy(update={"allocated_bytes": old.size_bytes + 4096})
    found = judge(day(*QUIET, store=old), day(*QUIET, store=now))
    assert finding(found, "store_size_mb").verdict == "equal"
    larger = now.model_copy(update={"size_bytes": now.size_bytes + 1})
    assert finding(judge(day(*QUIET, store=old), day(*QUIET, store=larger)), "store_size_mb").verdict == "more"


def test_failed_runs_are_left_out() -> None:
    broken = [run([9.0], block=6, status="failed"), run([9.0], block=7, status="failed")]
    assert finding(judge(day(*QUIET), day(*QUIET) + broken)).n == (6, 6)


@pytest.mark.parametrize("speed", [1.0, 0.93, 1.07])
def test_simulated_days_are_told_apart(speed: float) -> None:
    """20 pairs of days with 3 % of noise of the runs' own and of the machine, which is a little faster or slower."""
    hits = false = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        before = series(*simulated(random, RUNS), cpu_share=0.98)
        now = series(*simulated(random, RUNS, day=speed), slower={"b": 1.15}, seed=seed, cpu_share=0.98)
        found = judge(before, now)
        hits += worse(found, "b")
        false += worse(found, "a")
    assert hits >= 18
    assert false <= 1


def hashing(
    random: np.random.Generator, seed: int, *, neighbours: float = 0.3, machine: float = 1.0, **factors: float
) -> list[Measured]:
    """A day of runs that feel nothing of neighbours, which slow the calibrations by up to two thirds in such a share.

    ``machine`` is how slow all is, ``factors`` by how much more time cells take.
    """
    found = []
    for slot in plan(("a", "b"), BLOCKS, seed):
        epoch_s = 0.4 * machine * factors.get(slot.cell, 1.0) * float(np.exp(random.normal(0, 0.01)))
        felt = random.uniform(0.5, 1) if random.random() < neighbours else random.uniform(0, 0.2)
        speed = [machine * (1 + share * felt) for share in (0.2, 0.2, 0.67)]
        place = {"cell": slot.cell, "block": slot.block, "control": slot.control}
        found.append(run([epoch_s], **place, cpu_share=0.99, speed=speed))
    return found


def test_what_feels_nothing_of_the_neighbours_is_held_beside_the_others() -> None:
    hits = false = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        found = judge(hashing(random, seed), hashing(random, seed, neighbours=0.8, b=1.15))
        hits += worse(found, "b")
        false += worse(found, "a")
    assert hits >= 18
    assert false <= 1


@pytest.mark.parametrize("b", [1 / 1.15, 1.0])
def test_a_machine_that_is_slower_for_all_is_no_regression_of_one(b: float) -> None:
    """Even where the other cell became faster meanwhile, so that it seems to have held still."""
    false = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        before = series(*simulated(random, RUNS), cpu_share=0.98)
        now = series(*simulated(random, RUNS, day=1.15), slower={"b": b}, seed=seed, cpu_share=0.98)
        false += worse(judge(before, now), "a")
    assert false <= 1


def test_beside_others_is_said_only_where_they_held_still() -> None:
    def days(b: float, machine: float) -> tuple[list[Measured], list[Measured]]:
        random = np.random.default_rng(1)
        return hashing(random, 1), hashing(random, 1, machine=machine, a=1.15, b=b)

    assert finding(judge(*days(1.0, 1.0))).verdict == "slower"
    for b, machine in ((0.9, 1.0), (1.0, 1.1), (1.15, 1.0)):
        found = finding(judge(*days(b, machine)))
        assert found.lines == 1
        assert found.by != OTHERS


def test_blocks_in_which_another_cell_is_missing_say_nothing_of_it() -> None:
    before = [run([v], cell=cell, block=n) for cell in "abc" for n, v in enumerate(QUIET)]
    now = [run([v], cell=cell, block=n) for cell in "abc" for n, v in enumerate(QUIET) if (cell, n) != ("c", 2)]
    both = list(yardsticks.sides(before, now).values())
    line = yardsticks.lines(both[0], HELD[0], both, _values(both[0]), (), 0.05)[1]
    assert [len(line[OTHERS].of(values)) for values in _values(both[0])] == [6, 5]


def _values(both: yardsticks.Sides) -> tuple[yardsticks.Values, yardsticks.Values]:
    return yardsticks.values_of(both.before, HELD[0]), yardsticks.values_of(both.now, HELD[0])


def test_on_a_busy_machine_cpu_time_tells() -> None:
    """20 pairs of days on which others take up to two thirds of the processor, and CPU time is counted in ticks."""
    hits = false = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        days = []
        for slower in ({}, {"b": 1.15}):
            day = []
            for slot in plan(("a", "b"), BLOCKS, seed):
                cpu_s = round(0.5 * slower.get(slot.cell, 1) * float(np.exp(random.normal(0, 0.02))), 2)
                epoch_s = cpu_s * random.uniform(1, 3)
                place = {"cell": slot.cell, "block": slot.block, "control": slot.control}
                day.append(
                    run([epoch_s], **place, cpu_share=cpu_s / epoch_s, speed=float(np.exp(random.normal(0, 0.01))))
                )
            days.append(day)
        found = judge(*days)
        hits += finding(found, "cpu_s", "b").worse
        false += worse(found, "a")
    assert hits >= 18
    assert false <= 1


def test_a_recorded_series_is_told_apart() -> None:
    """20 pairs of days out of one recorded series of equal runs, one after the other; the speed was not recorded."""
    runs = json.loads((SERIES / "quiet.json").read_text())["runs_epoch_s"]
    hits = false = 0
    for number in range(20):
        start = number * 2 * RUNS % (len(runs) - 2 * RUNS)
        before = series(runs[start : start + RUNS], [1.0] * RUNS)
        now = runs[start + RUNS : start + 2 * RUNS]
        found = judge(before, series(now, [1.0] * RUNS, slower={"b": 1.15}, seed=number))
        hits += worse(found, "b")
        false += worse(found, "a")
    assert hits >= 18
    assert false <= 1


def test_speeds_are_ratios_of_medians() -> None:
    found = regression.speeds([run([1.0], speed=[1.0, 1.0, 2.0])], [run([1.0], speed=[1.5, 1.0, 1.0])])
    assert found == pytest.approx({"copy": 1.5, "decode": 1.0, "loop": 0.5})
