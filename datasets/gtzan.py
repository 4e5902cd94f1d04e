"""GTZAN: music in ten genres (Tzanetakis & Cook, 2002), each track cut into segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

from pydantic import Field

from bench.contracts.options import Options
from bench.contracts.source import Content, Origin, RawData, SourceError, Split

from .audio import AudioOptions, FeatureName, Hop, NFft, NMels, SampleRate, Segments
from .decoded import DecodedFiles, Facts
from .download import Remote
from .extraction import Limits
from .published import Published
from .sounds import Sound, SoundFile
from .synthetic_audio import SyntheticSound
from .trees import files_below, stratified

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")

_TRACKS_PER_GENRE = 100
_TRACK_SECONDS = 30.0
_TEST_FRACTION, _VAL_FRACTION = 0.25, 0.2
_SUFFIXES = (".au", ".wav")


class GtzanOptions(AudioOptions):
    """Options of GTZAN. A track of 30 s gives as many segments of ``seconds`` as it holds."""

    feature: FeatureName = "mfcc"
    sample_rate: SampleRate = 22_050
    n_fft: NFft = 2048
    hop: Hop = 512
    n_mels: NMels = 128
    seconds: Annotated[
        float, Field(ge=0.1, le=_TRACK_SECONDS, description="Length of one segment of a track, in seconds.")
    ] = 3.0

    @property
    def segments(self) -> int:
        """How many segments a track gives."""
        # Whole up to rounding: 30 / 0.1 is 300.
        return int(_TRACK_SECONDS / self.seconds + 1e-9)


class Gtzan(Published):
    """1,000 tracks of 30 s in 10 genres, each cut into 10 segments of 3 s.

    The layout is a folder per genre with tracks in AU or WAV. Splits: of each genre a
    quarter of the tracks is ``test``, a fifth of the others ``val``, the rest ``train``; the
    segments of a track are in one split.
    """

    name: ClassVar[str] = "gtzan"
    splits: ClassVar[tuple[Split, ...]] = ("train", "val", "test")
    content: ClassVar[Content | None] = "sounds"
    options_type: ClassVar[type[Options]] = GtzanOptions
    options: GtzanOptions
    archives: ClassVar[tuple[Remote, ...]] = (Remote("genres.tar.gz", (), md5="5b3d6dddb579ab49814ab86dba69e7c7"),)
    folders: ClassVar[tuple[str, ...]] = ("genres", "genres_original", "Data", "GTZAN")
    licence: ClassVar[str] = "none stated; excerpts of commercial recordings, for research"
    limits: ClassVar[Limits] = Limits(max_members=10_000, max_member_bytes=64 << 20, max_total_bytes=8 << 30)
    unavailable: ClassVar[str | None] = (
        "gtzan is no longer offered by its publisher: get genres.tar.gz elsewhere (such as marsyas/gtzan on "
        "Hugging Face) and point --source local:PATH at it, or at the folder with blues/, classical/, ..."
    )

    def wanted(self, member: str) -> bool:
        """See Published.wanted."""
        path = PurePosixPath(member)
        return path.parent.name in GENRES and path.suffix in _SUFFIXES and not path.name.startswith(".")

    def is_root(self, folder: Path) -> bool:
        """See Published.is_root. Two genres are enough: a local copy may be a part."""
        return sum((folder / genre).is_dir() for genre in GENRES) > 1

    def open_folder(self, folder: Path, origin: Origin) -> RawData:
        """See Published.open_folder. Raises SourceError where a genre has no tracks."""
        tracks: dict[str, list[Sound]] = {}
        for label, genre in enumerate(GENRES):
            if not (folder / genre).is_dir():
                continue
            # A track that is there in both formats must not be in two splits.
            paths = {Path(path).with_suffix(""): path for path in files_below(folder / genre, _SUFFIXES)}
            if not paths:
                raise SourceError(f"{folder / genre} has no tracks ({', '.join(_SUFFIXES)}). Add some, or remove it.")
            tracks[genre] = [SoundFile(path, label) for _, path in sorted(paths.items())]
        return self._divided(tracks, origin)

    def imitate(self) -> RawData:
        """See DataSource.imitate. 100 tracks per genre, as published."""
        tracks = {
            genre: [
                SyntheticSound(label, len(GENRES), label * _TRACKS_PER_GENRE + number, _TRACK_SECONDS)
                for number in range(_TRACKS_PER_GENRE)
            ]
            for label, genre in enumerate(GENRES)
        }
        return self._divided(tracks, "synthetic")

    def _divided(self, tracks: Mapping[str, Sequence[Sound]], origin: Origin) -> RawData:
        options = self.options
        rest, test = stratified(tracks, _TEST_FRACTION)
        by_genre: dict[str, list[Sound]] = {}
        for track in rest:
            by_genre.setdefault(GENRES[track.label], []).append(track)
        train, val = stratified(by_genre, _VAL_FRACTION)
        parts: dict[Split, list[Sound]] = {"train": train, "val": val, "test": test}
        segments = Segments(options.spectrum, options.length, options.segments, options.trim_db)
        return DecodedFiles(
            Facts(self.name, GENRES, self.licence, origin),
            {split: options.items(split, tracks) for split, tracks in parts.items()},
            segments.decoding(),
            skip_bad=options.skip_bad,
        )
