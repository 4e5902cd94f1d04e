"""Sensors of a GPU against an NVML whose values are known, and against none at all."""

import pickle
import sys
import types

import pytest

from bench.measure import gpu

UUID = "GPU-01234567-89ab-cdef-0123-456789abcdef"


class FakeError(Exception):
    """As pynvml's NVMLError."""


class FakeNvml(types.ModuleType):
    """One GPU that answers as pynvml would; ``broken`` functions are not supported."""

    NVMLError = FakeError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_PSTATE_UNKNOWN = 1, 2, 0, 32
    nvmlMemory_v2 = 0x02000028  # noqa: N815  # pynvml's name

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.broken: set[str] = set()
        self.known = {UUID: "handle", "MIG-1": "slice", "00000000:3B:00.0": "handle"}
        self.pids = [11, 12, 13]
        self.energy_mj = 1000
        self.nvmlClocksEventReasonGpuIdle = 1
        self.nvmlClocksEventReasonSwPowerCap = 4
        self.nvmlClocksEventReasonHwThermalSlowdown = 0x40
        self.nvmlClocksEventReasonAll = 0x45
        self.nvmlClocksThrottleReasonSwPowerCap = 4
        self.nvmlClocksThrottleReasonReliability = 0x400
        values = {
            "nvmlInit": None,
            "nvmlSystemGetDriverVersion": "570.1",
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "handle",
            "nvmlDeviceGetUUID": UUID,
            "nvmlDeviceGetUtilizationRates": types.SimpleNamespace(gpu=37, memory=5),
            "nvmlDeviceGetPerformanceState": 2,
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x44,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x404,
        }
        for name, value in values.items():
            setattr(self, name, lambda *_, name=name, value=value: self.answer(name, value))

    def answer(self, name: str, value):
        if name in self.broken:
            raise FakeError("Not Supported")
        return value

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        if uuid not in self.known:
            raise FakeError("Not Found")
        return self.known[uuid]

    nvmlDeviceGetHandleByPciBusId = nvmlDeviceGetHandleByUUID  # noqa: N815

    def nvmlDeviceGetMemoryInfo(self, handle, version=None):  # noqa: N802
        used = self.answer("memory_v2", 5_000) if version == self.nvmlMemory_v2 else self.answer("memory_v1", 7_000)
        return types.SimpleNamespace(used=used)

    def nvmlDeviceGetClockInfo(self, handle, kind):  # noqa: N802
        return self.answer("clocks", {1: 1980, 2: 3201}[kind])

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        return self.answer("energy", self.energy_mj)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):  # noqa: N802
        return [types.SimpleNamespace(pid=pid) for pid in self.answer("pids", self.pids)]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    module = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def taken(at_s: float, **readings) -> gpu.GpuSample:
    return gpu.GpuSample(at_s, **readings)


def test_the_driver_is_known_by_its_version(nvml: FakeNvml) -> None:
    assert gpu.driver_version() == "570.1"
    nvml.broken.add("nvmlSystemGetDriverVersion")
    assert gpu.driver_version() is None
    nvml.broken.add("nvmlInit")
    assert gpu.driver_version() is None


def test_every_reading_reaches_the_sample(nvml: FakeNvml) -> None:
    sensor = gpu.GpuSensor(UUID)
    sample = sensor.sample([12])
    assert sensor.reason is None
    assert (sample.used_bytes, sample.memory_api) == (5_000, "v2")
    assert (sample.sm_mhz, sample.memory_mhz, sample.temperature_c) == (1980, 3201, 61)
    assert (sample.utilisation, sample.p_state, sample.energy_mj) == (0.37, 2, 1000)
    assert sample.reasons == ("HwThermalSlowdown", "SwPowerCap")
    assert sample.other_pids == (11, 13)
    assert pickle.loads(pickle.dumps(sample)) == sample


def test_each_reading_may_be_unsupported_by_itself(nvml: FakeNvml) -> None:
    functions = {name for name in vars(nvml) if name.startswith("nvmlDeviceGet")}
    nvml.broken = functions | {"memory_v1", "memory_v2", "clocks", "energy", "pids"}
    sample = gpu.GpuSensor(UUID).sample([12])
    assert sample == gpu.GpuSample(sample.at_s)


def test_used_memory_of_an_old_driver_is_marked_as_the_first_version(nvml: FakeNvml) -> None:
    nvml.broken = {"memory_v2"}
    sample = gpu.GpuSensor(UUID).sample()
    assert (sample.used_bytes, sample.memory_api) == (7_000, "v1")


def test_an_old_driver_tells_the_reasons_by_their_old_name(nvml: FakeNvml) -> None:
    nvml.broken = {"nvmlDeviceGetCurrentClocksEventReasons"}
    assert gpu.GpuSensor(UUID).sample().reasons == ("Reliability", "SwPowerCap")


def test_an_unknown_performance_state_is_none(nvml: FakeNvml) -> None:
    nvml.nvmlDeviceGetPerformanceState = lambda handle: nvml.NVML_PSTATE_UNKNOWN
    assert gpu.GpuSensor(UUID).sample().p_state is None


@pytest.mark.parametrize("own", [(), (99,)], ids=["nobody of ours", "numbers of another namespace"])
def test_other_processes_are_unknown_unless_our_own_are_seen(nvml: FakeNvml, own: tuple[int, ...]) -> None:
    assert gpu.GpuSensor(UUID).sample(own).other_pids is None


def test_alone_on_the_gpu_is_not_the_same_as_unknown(nvml: FakeNvml) -> None:
    nvml.pids = [12]
    assert gpu.GpuSensor(UUID).sample([12]).other_pids == ()


@pytest.mark.parametrize(
    ("identity", "handle"),
    [(UUID, "handle"), (UUID.removeprefix("GPU-"), "handle"), ("1", "slice"), ("00000000:3B:00.0", "handle")],
)
def test_a_gpu_is_found_by_any_identity_that_cuda_gives(nvml: FakeNvml, identity: str, handle: str) -> None:
    seen = []
    nvml.nvmlDeviceGetTemperature = lambda handle, sensor: seen.append(handle)
    gpu.GpuSensor(identity).sample()
    assert seen == [handle]


def test_a_gpu_that_nvml_does_not_know_is_named(nvml: FakeNvml) -> None:
    sensor = gpu.GpuSensor("GPU-other")
    assert sensor.sample() is None
    assert "GPU-other" in sensor.reason


def test_the_identity_of_a_cuda_device_is_its_uuid_else_its_place_on_the_bus() -> None:
    place = {"pci_domain_id": 0, "pci_bus_id": 59, "pci_device_id": 0}
    assert gpu.cuda_identity(types.SimpleNamespace(uuid=UUID[4:], **place)) == UUID[4:]
    assert gpu.cuda_identity(types.SimpleNamespace(**place)) == "00000000:3B:00.0"


def test_without_the_library_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sensor = gpu.GpuSensor(UUID)
    assert sensor.sample() is None
    assert "pip install nvidia-ml-py" in sensor.reason
    assert gpu.identities() == ([], sensor.reason)


def test_without_a_driver_there_is_a_reason_and_no_sample(nvml: FakeNvml) -> None:
    nvml.broken = {"nvmlInit"}
    sensor = gpu.GpuSensor(UUID)
    assert sensor.sample() is None
    assert "no NVIDIA driver" in sensor.reason
    assert gpu.identities() == ([], sensor.reason)


def test_the_real_library_answers_or_gives_a_reason() -> None:
    found, reason = gpu.identities()
    assert bool(found) != bool(reason)
    for identity in found:
        assert gpu.GpuSensor(identity).sample().used_bytes > 0
    if not found:
        assert gpu.GpuSensor(UUID).sample() is None


def test_the_names_of_the_real_library_are_the_ones_asked_for() -> None:
    import pynvml

    fake = FakeNvml()
    asked = {name for name in {*vars(fake), *dir(FakeNvml)} if name.lower().startswith("nvml")}
    assert {name for name in asked if not hasattr(pynvml, name)} == set()
    names = gpu._reason_names(pynvml)
    assert names[pynvml.nvmlClocksEventReasonHwThermalSlowdown] == "HwThermalSlowdown"
    assert names[pynvml.nvmlClocksThrottleReasonReliability] == "Reliability"


def test_gpus_are_listed_by_uuid(nvml: FakeNvml) -> None:
    assert gpu.identities() == ([UUID], None)
    nvml.broken = {"nvmlDeviceGetCount"}
    assert gpu.identities() == ([], "NVML failed: Not Supported")


def test_a_window_keeps_the_extremes_of_its_samples() -> None:
    use = gpu.summarise(
        [
            taken(0, used_bytes=5, sm_mhz=900, memory_mhz=9, temperature_c=60, p_state=0, reasons=("GpuIdle",)),
            taken(1, used_bytes=9, sm_mhz=700, memory_mhz=8, temperature_c=70, p_state=2, other_pids=(7,)),
            taken(2, used_bytes=3, sm_mhz=800, memory_mhz=9, temperature_c=65, reasons=("SwPowerCap",), other_pids=()),
        ]
    )
    assert (use.samples, use.window_s, use.peak_used_bytes) == (3, 2, 9)
    assert (use.lowest_sm_mhz, use.lowest_memory_mhz, use.highest_temperature_c, use.slowest_p_state) == (700, 8, 70, 2)
    assert use.reasons == ("GpuIdle", "SwPowerCap")
    assert use.other_pids == (7,)
    assert use.facts()["throttled"] is use.throttled is True


@pytest.mark.parametrize(
    ("reasons", "throttled"), [(None, None), ((), False), (("GpuIdle",), False), (("HwSlowdown", "GpuIdle"), True)]
)
def test_idleness_is_not_throttling_and_unknown_is_neither(reasons, throttled) -> None:
    assert gpu.summarise([taken(0, reasons=reasons)]).throttled is throttled


def test_utilisation_is_weighed_by_the_time_it_held() -> None:
    use = gpu.summarise([taken(0, utilisation=1.0), taken(1, utilisation=0.5), taken(4, utilisation=0.9)])
    assert use.mean_utilisation == pytest.approx((0.5 * 1 + 0.9 * 3) / 4)
    assert gpu.summarise([taken(0, utilisation=1.0)]).mean_utilisation is None


@pytest.mark.parametrize(
    ("window_s", "before_mj", "after_mj", "energy_j"),
    [(30, 1000, 61_000, 60), (29.9, 1000, 61_000, None), (60, 5000, 1000, None), (60, None, 1000, None)],
    ids=["long enough", "too short", "driver restarted", "no counter"],
)
def test_energy_is_told_for_long_windows_of_a_working_counter(window_s, before_mj, after_mj, energy_j) -> None:
    use = gpu.summarise([taken(10, energy_mj=before_mj), taken(10 + window_s, energy_mj=after_mj)])
    assert use.energy_j == energy_j


def test_what_no_sample_tells_stays_unknown() -> None:
    facts = gpu.summarise([taken(0), taken(1)]).facts()
    assert {value for name, value in facts.items() if name not in ("samples", "window_s")} == {None}


def test_what_cupy_holds_is_unknown_unless_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert gpu.cupy_pool_bytes() is None
    pool = types.SimpleNamespace(total_bytes=lambda: 12345)
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(get_default_memory_pool=lambda: pool))
    assert gpu.cupy_pool_bytes() == 12345
