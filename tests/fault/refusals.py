"""Loads and asks what must be refused, and prints each refusal: a script for `python` and for `python -O`.

`python -O -m tests.fault.refusals FOLDER` writes its artefacts below the folder. One line of JSON: each case with the
type and the words of the error, or with what came back where nothing was refused.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np

from registry.contracts import ArtifactKind, ReleaseVersions
from registry.models.artifacts import read_manifest
from registry.models.embedding import Embedding
from registry.models.item_index import IndexConfig, IndexKind, ItemIndex
from registry.release import load_release
from tests.releases import CONTENT_WIDTH, DIMENSIONS, FEATURES, SCHEMA, make_embedding, make_index, write_release

Case = Callable[[], object]
EMBEDDING, INDEX, RANKER = ArtifactKind
WIDTH = 2 * DIMENSIONS


def load(paths: dict[ArtifactKind, Path], **changes: Any) -> object:
    arguments = {"feature_schema": SCHEMA, "feature_names": FEATURES, **changes}
    return load_release(paths, ReleaseVersions(1, 1, 1), **arguments)


def damaged(root: Path, paths: dict[ArtifactKind, Path]) -> dict[str, Case]:
    """Return the loading of every file of every artefact, truncated at several lengths, flipped, emptied and absent."""
    cases: dict[str, Case] = {}
    for kind, path in paths.items():
        for name in [*read_manifest(path).files, "manifest.json"]:
            content = (path / name).read_bytes()
            flipped = bytearray(content)
            flipped[len(content) // 2] ^= 0x40
            wrongs = {"empty": b"", "half": content[: len(content) // 2], "short": content[:-2], "flipped": flipped}
            for how, wrong in wrongs.items():
                folder = copytree(path, root / f"{kind.value}-{name}-{how}")
                (folder / name).write_bytes(wrong)
                cases[f"{kind.value} {name} {how}"] = lambda kind=kind, folder=folder: load({**paths, kind: folder})
            folder = copytree(path, root / f"{kind.value}-{name}-absent")
            (folder / name).unlink()
            cases[f"{kind.value} {name} absent"] = lambda kind=kind, folder=folder: load({**paths, kind: folder})
    return cases


def mismatched(root: Path, first: dict[ArtifactKind, Path], second: dict[ArtifactKind, Path]) -> dict[str, Case]:
    lineage = {"embedding_digest": read_manifest(first[EMBEDDING]).digest}
    narrow = ItemIndex.build(np.arange(1, 9), np.eye(8, WIDTH - 2, dtype=np.float32))[0]
    narrow.save(root / "narrow", lineage)
    nobody = ItemIndex.build(np.empty(0, np.int64), np.empty((0, WIDTH), np.float32))[0]
    nobody.save(root / "nobody", lineage)
    make_index(make_embedding(7)).save(root / "liar", lineage)
    return {
        "index of another embedding": lambda: load({**first, EMBEDDING: second[EMBEDDING]}),
        "index of another width": lambda: load({**first, INDEX: root / "narrow"}),
        "index of nobody": lambda: load({**first, INDEX: root / "nobody"}),
        "index that lies about its embedding": lambda: load({**first, INDEX: root / "liar"}),
        "index where a ranker should be": lambda: load({**first, RANKER: first[INDEX]}),
        "another feature schema": lambda: load(first, feature_schema="f" * 64),
        "renamed feature": lambda: load(first, feature_names=("renamed", *FEATURES[1:])),
        "missing feature": lambda: load(first, feature_names=FEATURES[1:]),
        "other bytes than promised": lambda: load(
            first, expected_digests={RANKER: read_manifest(second[RANKER]).digest}
        ),
    }


def factors(**changes: Any) -> Embedding:
    made = make_embedding()
    return Embedding(
        **{
            "user_ids": made.user_ids,
            "chooser": made.chooser,
            "chosen": made.chosen,
            "content_weights": np.zeros((CONTENT_WIDTH, WIDTH), np.float32),
            "content_intercept": np.zeros(WIDTH, np.float32),
            **changes,
        }
    )


def release_on(embedding: Embedding, root: Path) -> object:
    """Save a coherent release on factors that may be senseless, and load it."""
    paths = write_release(root, 5)
    paths[EMBEDDING] = root / "senseless"
    digest = embedding.save(paths[EMBEDDING], {"dataset_digest": "d"}).digest
    paths[INDEX] = root / "on-it"
    make_index(make_embedding()).save(paths[INDEX], {"embedding_digest": digest})
    return load(paths)


def built(root: Path) -> dict[str, Case]:
    """Return what a build must refuse."""
    made = make_embedding()
    broken = {"NaN": np.nan, "infinite": np.inf, "huge": 1e30}
    cases: dict[str, Case] = {}
    for name, value in broken.items():
        wrong = made.chooser.copy()
        wrong[3, 1] = value
        vectors = np.ones((8, WIDTH), np.float32)
        vectors[2, 2] = value
        cases[f"embedding with {name} factors"] = lambda wrong=wrong, name=name: release_on(
            factors(chooser=wrong), root / name
        )
        cases[f"index over {name} vectors"] = lambda vectors=vectors: ItemIndex.build(np.arange(1, 9), vectors)
    return {
        **cases,
        "embedding of other lengths": lambda: factors(chosen=made.chosen[:-1]),
        "embedding with repeated ids": lambda: factors(user_ids=np.ones(len(made.user_ids), np.int64)),
        "index with repeated ids": lambda: ItemIndex.build(np.ones(8, np.int64), np.ones((8, WIDTH), np.float32)),
        "index of other lengths": lambda: ItemIndex.build(np.arange(1, 8), np.ones((8, WIDTH), np.float32)),
    }


def asked(release: Any) -> dict[str, Case]:
    """Return queries and features that a good release must not answer."""
    index, ranker = release.index, release.ranker
    vectors = np.random.default_rng(0).normal(size=(400, WIDTH)).astype(np.float32)
    ivf = ItemIndex.build(np.arange(1, 401), vectors, IndexConfig(kind=IndexKind.IVF_FLAT, nlist=4, threads=1))[0]
    cases: dict[str, Case] = {}
    for name, searched in (("flat", index), ("ivf", ivf)):
        for what, query in {
            "narrow": np.ones(WIDTH - 1, np.float32),
            "wide": np.ones(WIDTH + 5, np.float32),
            "NaN": np.full(WIDTH, np.nan, np.float32),
            "infinite": np.full(WIDTH, np.inf, np.float32),
            "huge": np.full(WIDTH, 3e38, np.float32),
        }.items():
            cases[f"{name} index asked a {what} query"] = lambda searched=searched, query=query: searched.search(
                query, 3
            )
        for n in (0, -1, 2_000_000):
            cases[f"{name} index asked for {n}"] = lambda searched=searched, n=n: searched.search(
                np.ones(WIDTH, np.float32), n
            )
    k = len(FEATURES)
    return {
        **cases,
        "ranker asked a narrow row": lambda: ranker.predict(np.ones((1, k - 1), np.float32)),
        "ranker asked a wide row": lambda: ranker.predict(np.ones((1, k + 1), np.float32)),
        "ranker asked a flat row": lambda: ranker.predict(np.ones(k, np.float32)),
        "ranker asked an infinite row": lambda: ranker.predict(np.full((1, k), np.inf, np.float32)),
        "ranker asked an empty row": lambda: ranker.predict(np.full((1, k), np.nan, np.float32)),
    }


def outcome(case: Case, root: Path) -> str:
    try:
        answer = case()
    except Exception as error:  # noqa: BLE001 which one it is, is what the test is about
        return f"{type(error).__module__}.{type(error).__name__}: {error}".replace(str(root), "FOLDER")
    return f"answered: {type(answer).__name__}"


def main(root: Path) -> None:
    first, second = write_release(root, 0), write_release(root, 1)
    (root / "wrong").mkdir()
    cases = {
        **damaged(root / "wrong", first),
        **mismatched(root, first, second),
        **built(root),
        **asked(load(first)),
    }
    found = {name: outcome(case, root) for name, case in cases.items()}
    print(json.dumps({"optimised": not __debug__, "found": found}))  # noqa: T201 the answer of the script


if __name__ == "__main__":
    main(Path(sys.argv[1]))
