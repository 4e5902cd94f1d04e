"""The search of `bench tune`, with a simulated clock and simulated measurements."""

import dataclasses
import itertools
import math
import random
from pathlib import Path

import pytest
import tabled

from bench import registry
from bench.campaigns.laboratory import BuiltStores
from bench.campaigns.search_space import Space, choices
from bench.campaigns.tuning import (
    Candidate,
    Configuration,
    Found,
    Measured,
    OutOfTimeError,
    Search,
    TuneError,
    keep,
    ladder,
    pareto,
)
from bench.contracts.errors import BenchError
from bench.report import tuned
from bench.specs.spec import RunSpec, make_spec, validated_options

BASELINE = Configuration()
TOTAL = 90_000
START_S = 2.0


def chunks(size: int) -> Configuration:
    return Configuration((("chunk", str(size)),))


class Simulation:
    """A run takes two seconds and what its samples take; chunk=64 is the best, and the others ever worse."""

    def __init__(self, *, failing: int | None = None, interrupt_after: int | None = None) -> None:
        self.now = 100.0
        self.failing, self.interrupt_after = failing, interrupt_after
        self.runs: list[tuple[Configuration, int, int]] = []
        self.cut_short = 0
        self.removed: list[Path] = []
        self.present = {Path("foreign")}
        self.stores = BuiltStores(self._remove)
        self._left = [chunks(size) for size in range(1, 101)]

    def _remove(self, store: Path) -> None:
        self.removed.append(store)
        self.present.remove(store)

    def draw(self, source: random.Random) -> Configuration | None:
        return self._left.pop(int(source.random() * len(self._left))) if self._left else None

    @staticmethod
    def sample_s(configuration: Configuration) -> float:
        size = int(dict(configuration.options).get("chunk", 100))
        return 1e-4 * (1 + abs(size - 64) / 10)

    def measure(self, configuration: Configuration, samples: int, rung: int, limit_s: float) -> Measured:
        if len(self.runs) == self.interrupt_after:
            raise KeyboardInterrupt
        self.runs.append((configuration, samples, rung))
        # The store of chunk=7 was there before.
        store = Path("foreign") if configuration == chunks(7) else Path(f"{configuration.options}-{samples}")
        self.stores.note(configuration, store, built=store not in self.present)
        self.present.add(store)
        epoch_s = samples * self.sample_s(configuration)
        if START_S + epoch_s > limit_s:
            self.now += limit_s
            self.cut_short += 1
            raise OutOfTimeError("too long.")
        self.now += START_S + epoch_s
        if self.failing is not None and configuration == chunks(self.failing):
            raise BenchError("It broke.")
        return Measured(samples, epoch_s, 1000.0, 1000.0, 1.0, START_S + epoch_s, epoch_s)

    def tidy(self, kept) -> None:
        self.stores.keep_only(kept)

    def search(self, budget_s: float, smallest: int = 1000) -> Found:
        def clock() -> float:
            return self.now

        samples = range(smallest, TOTAL + 1)
        return Search(BASELINE, self.draw, self, samples, budget_s, 0, lambda text: None, clock).run()


def test_the_known_best_is_found_and_the_defaults_are_beside_it() -> None:
    found = Simulation().search(3600)
    assert found.shown()[0].configuration == chunks(64)
    assert found.tried == 101
    assert BASELINE in [candidate.configuration for candidate in found.shown()]
    assert found.rungs[-1] == TOTAL
    assert all(len(candidate.runs) >= 2 for candidate in found.shown())


@pytest.mark.parametrize("budget_s", [15, 60, 120, 300, 1000])
def test_the_budget_is_kept_and_most_of_it_used(budget_s: float) -> None:
    simulation = Simulation()
    found = simulation.search(budget_s)
    assert simulation.now - 100 <= budget_s
    assert simulation.cut_short == 0, "nothing is begun that cannot be done in time"
    assert found.elapsed_s == pytest.approx(simulation.now - 100)
    assert found.elapsed_s > 0.5 * budget_s
    assert len(found.candidates) > 1


def test_each_rung_has_three_times_the_samples_for_the_best_third() -> None:
    simulation = Simulation()
    found = simulation.search(600)
    assert len(found.rungs) > 2
    for small, large in itertools.pairwise(found.rungs):
        assert large // 3 == small
    for number in range(1, len(found.rungs)):
        below = {run[0] for run in simulation.runs if run[2] == number - 1}
        here = {run[0] for run in simulation.runs if run[2] == number}
        assert here < below
        assert len(here) <= 1 + -(-len(below) // 3)
        best = sorted(below - {BASELINE}, key=simulation.sample_s)
        assert here == {BASELINE, *best[: len(here) - 1]}


def test_the_same_seed_finds_the_same() -> None:
    first, second = Simulation(), Simulation()
    assert first.search(300) == second.search(300)
    assert first.runs == second.runs


def test_only_stores_of_the_result_are_left_and_those_of_others_untouched() -> None:
    simulation = Simulation()
    found = simulation.search(3600)
    left = {Path(f"{candidate.configuration.options}-{TOTAL}") for candidate in found.shown()}
    assert simulation.present == {Path("foreign"), *left}
    assert len(simulation.removed) == len(set(simulation.removed)) > 100


def test_stores_of_losers_go_while_the_search_is_on() -> None:
    simulation = Simulation()
    most = 0
    measure = simulation.measure

    def counting(*arguments) -> Measured:
        nonlocal most
        most = max(most, len(simulation.present))
        return measure(*arguments)

    simulation.measure = counting
    simulation.search(3600)
    assert most < 20


def test_stores_of_a_part_of_the_data_are_all_removed() -> None:
    simulation = Simulation()
    found = simulation.search(15)
    assert found.candidates[0].runs[0].samples < TOTAL
    assert simulation.present == {Path("foreign")}


def test_what_fails_is_told_and_dropped() -> None:
    found = Simulation(failing=64).search(3600)
    assert found.failed[0] == (chunks(64), "It broke.")
    assert found.shown()[0].configuration in {chunks(63), chunks(65)}


def test_what_takes_far_longer_than_expected_is_given_up() -> None:
    simulation = Simulation()
    simulation.sample_s = lambda configuration: 0.1 if configuration == chunks(3) else 1e-4
    found = simulation.search(3600)
    assert [configuration for configuration, _ in found.failed] == [chunks(3)]
    assert simulation.now - 100 <= 3600


@pytest.mark.parametrize("after", [1, 2, 5, 40, 104])
def test_an_interruption_ends_with_what_is_known(after: int) -> None:
    simulation = Simulation(interrupt_after=after)
    found = simulation.search(3600)
    assert found.interrupted
    assert len(simulation.runs) == after
    assert {candidate.configuration for candidate in found.shown()} >= {BASELINE}
    if found.candidates[0].runs[0].samples < TOTAL:
        assert simulation.present == {Path("foreign")}


def test_an_interruption_before_anything_is_known_is_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        Simulation(interrupt_after=0).search(300)


def test_a_budget_that_is_too_short_for_one_run_is_told() -> None:
    with pytest.raises(TuneError, match="not even one run on 1,000 samples was done"):
        Simulation().search(1)


def candidate(*objectives: float, size: int = 1) -> Candidate:
    epoch_s, store_bytes, peak_bytes, prepare_s = objectives
    return Candidate(chunks(size), [Measured(10, epoch_s, store_bytes, peak_bytes, prepare_s, 1, 1)])


def test_the_pareto_set_is_what_brute_force_finds() -> None:
    source = random.Random(1)
    for _ in range(50):
        field = [candidate(*(source.randrange(1, 5) for _ in range(4)), size=n) for n in range(12)]

        def beaten(one: Candidate, field: list[Candidate] = field) -> bool:
            for other in field:
                worse = sum(a > b for a, b in zip(one.objectives, other.objectives, strict=True))
                better = sum(a < b for a, b in zip(one.objectives, other.objectives, strict=True))
                if worse and not better:
                    return True
            return False

        assert pareto(field) == [one for one in field if not beaten(one)]


def test_the_pareto_set_is_kept_before_what_is_only_faster() -> None:
    small, fast, faster_but_beaten = candidate(3, 1, 1, 1), candidate(1, 2, 2, 2), candidate(1.5, 2, 2, 2)
    assert keep([faster_but_beaten, small, fast], 2) == [fast, small]
    assert keep([faster_but_beaten, small, fast], 3) == [fast, small, faster_but_beaten]


def test_rungs_grow_to_the_whole_data_only_where_the_budget_allows() -> None:
    first = Measured(1000, 0.5, 1, 1, 1, wall_s=3.0, work_s=1.0)
    assert ladder(54_000, 1000, first, 10_000) == [2000, 6000, 18_000, 54_000]
    assert ladder(54_000, 1000, first, 300) == [2000, 6000, 18_000]
    assert ladder(54_000, 1000, first, 10) == [1000]
    assert ladder(1000, 1000, first, 300) == [1000]
    quick = Measured(1000, 0.005, 1, 1, 1, wall_s=3.0, work_s=0.01)
    assert ladder(54_000, 1000, quick, 10_000) == [6000, 18_000, 54_000]


def found_of(**runs: tuple[float, ...]) -> Found:
    candidates = [
        Candidate(
            BASELINE if name == "defaults" else Configuration((("chunk", name),)),
            [Measured(10, epoch_s, 1, 1, 1, 1, 1) for epoch_s in epochs],
        )
        for name, epochs in runs.items()
    ]
    return Found(candidates, BASELINE, 10, len(runs), [10], [], 1.0, interrupted=False)


@pytest.mark.parametrize(
    ("other", "ratio"),
    [((0.5, 0.52), 0.51), ((0.95, 0.97), None), ((0.5,), None), ((2.0, 2.02), 2.01), ((0.5, 1.4), None)],
    ids=str,
)
def test_only_differences_beyond_the_spread_of_repeats_are_claimed(other: tuple[float, ...], ratio) -> None:
    found = found_of(defaults=(0.95, 1.05), other=other)
    defaults, one = found.candidates
    assert tuned.claimed_ratio(found, one, defaults) == (None if ratio is None else pytest.approx(ratio))


def report_of(found: Found) -> tuned.Tuned:
    return tuned.Tuned("id", found, [tabled.run("zarr", 1.0)], tuned.Commands("zarr", "cifar10", ()), 300.0)


def test_a_lucky_single_run_stands_before_no_repeated_one() -> None:
    found = found_of(defaults=(1.0, 1.02), lucky=(0.6,), good=(0.7, 0.71), poor=(0.9, 0.91))
    assert [c.configuration.pairs for c in found.shown()] == [["chunk=good"], []]
    report = report_of(found)
    assert report.sentences()[0] == "chunk=good, no workers took 0.70 times the epoch of the defaults."
    assert "of those that ran more than once, what no other one equals" in report.table().notes[0]
    assert report.table().notes[1] == "Left out: 1 more on as many samples that ran once, as one run may be lucky."
    assert "chunk=lucky" not in "\n".join(report.sentences())


@pytest.mark.parametrize("defaults", [(1.0,), (1.0, 1.02)])
def test_where_nothing_else_ran_twice_all_are_shown_and_nothing_is_claimed(defaults: tuple[float, ...]) -> None:
    report = report_of(found_of(defaults=defaults, lucky=(0.6,)))
    assert len(report.found.shown()) == 2
    assert "(one run, nothing claimed)" in report.sentences()[0]
    assert not any("Left out" in note for note in report.table().notes)


def test_defaults_that_nothing_repeated_beats_are_said_to_be() -> None:
    report = report_of(found_of(defaults=(1.0, 1.02), lucky=(0.6,), poor=(1.1, 1.2)))
    assert report.sentences()[0] == "No configuration that ran more than once was faster than the defaults."


@pytest.mark.parametrize("seed", range(10))
def test_a_real_gain_is_claimed_however_many_ran_once(seed: int) -> None:
    source = random.Random(seed)
    simulation = Simulation()
    measure = simulation.measure
    simulation.sample_s = lambda configuration: 1e-4 if configuration == BASELINE else 0.7e-4

    def noisy(*arguments) -> Measured:
        measured = measure(*arguments)
        return dataclasses.replace(measured, epoch_s=measured.epoch_s * math.exp(source.gauss(0, 0.03)))

    simulation.measure = noisy
    found = simulation.search(3600)
    assert any(len(candidate.runs) == 1 for candidate in found.candidates)
    assert "times the epoch of the defaults" in report_of(found).sentences()[0]


def space(backend: str, *option: str, fixed: tuple[str, ...] = (), cores: int = 4, **loading) -> Space:
    cls = registry.backend_class(backend)
    pairs = tuple(tuple(pair.split("=")) for pair in option)
    fields = {name: field.annotation for name, field in cls.options_type.model_fields.items()}
    baseline = Configuration(pairs, **loading)
    return Space(fields, lambda values: cls(validated_options(cls, values)), baseline, fixed, cores)


def drawn(place: Space, count: int = 150) -> list[Configuration]:
    source = random.Random(0)
    return [one for one in (place.draw(source) for _ in range(count)) if one is not None]


@pytest.mark.parametrize("backend", ["filesystem", "hdf5", "memmap", "memory", "zarr"])
def test_every_configuration_is_one_that_the_backend_takes_and_comes_once(backend: str) -> None:
    specs = []
    for one in drawn(space(backend)):
        loading = {"workers": one.workers, "worker_kind": one.worker_kind, "prefetch": one.prefetch}
        specs.append(make_spec(RunSpec, one.pairs, backend=backend, dataset="toys", **loading))
    assert len({spec.spec_id for spec in specs}) == len(specs) > 20
    assert not any(spec.open_backend().capabilities.lossy for spec in specs)
    assert {spec.workers for spec in specs} == {0, 1, 2, 4}
    assert {spec.prefetch for spec in specs} == {1, 2, 4, 8, 16}


def test_a_layout_that_goes_with_few_other_options_is_drawn_as_well() -> None:
    # Its plain layout goes with one chunk and one compression of all.
    plain = [one for one in drawn(space("hdf5"), 100) if not {"chunk", "compression"} & set(dict(one.options))]
    assert len(plain) > 10


def test_shards_are_drawn_with_chunks_that_fit() -> None:
    found = [dict(one.options) for one in drawn(space("zarr"))]
    assert any("shard" in options for options in found)
    assert all(int(options["shard"]) % int(options["chunk"]) == 0 for options in found if "shard" in options)


def test_what_is_given_stays_as_it_is() -> None:
    found = drawn(space("zarr", "chunk=32", fixed=("workers", "worker_kind"), workers=2, worker_kind="thread"))
    assert {dict(one.options)["chunk"] for one in found} == {"32"}
    assert {(one.workers, one.worker_kind) for one in found} == {(2, "thread")}
    assert len({one.options for one in found}) > 5


def test_a_space_ends() -> None:
    assert {one.options for one in drawn(space("memory", fixed=("workers",)))} == {(("reader", "naive"),)}


def test_a_backend_without_workers_gets_none() -> None:
    assert {one.workers for one in drawn(space("cupy"))} == {0}


def test_lossy_configurations_are_searched_only_where_the_defaults_are_lossy() -> None:
    assert all("jpeg" not in dict(one.options).values() for one in drawn(space("filesystem")))
    lossy = drawn(space("filesystem", "format=jpeg"))
    assert {dict(one.options)["format"] for one in lossy} == {"jpeg"}


def test_named_values_are_found_inside_a_union() -> None:
    from typing import Literal

    assert choices(Literal["a", "b"] | None) == ("a", "b")
    assert choices(int | None) == ()
