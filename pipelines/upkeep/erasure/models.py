"""Which registered versions saw a person: a model is not unlearned, it is named, and the next training is without them.

A version counts if it was registered while the person was there, or later by a training that had begun on data with
them: on the data set of such a version, or on one that the erasure has removed from the results.
"""

from typing import Any

from pipelines.upkeep.erasure.found import Gone

RESULTS = "results of the pipelines"
"""The place whose data sets are remembered."""


def versions_that_saw(gone: Gone, places: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return model, version and stage of each version of the registry that may have seen the person, newest first.

    `places` are what was found in each place. Raises RegistryUnavailable.
    """
    from registry.contracts import MODEL_NAMES, TAG_DATASET_DIGEST, ArtifactKind

    versions = [version for kind in ArtifactKind for version in gone.platform.registry.versions(kind)]
    known_from, saw = gone.erasure.known_from, []
    for version in versions:
        registered = version.created_at
        if registered is None or ((known_from is None or registered >= known_from) and registered <= gone.since):
            saw.append(version)
    datasets = {version.tags.get(TAG_DATASET_DIGEST) for version in saw} - {None}
    datasets |= set(places.get(RESULTS, {}).get("datasets", ()))
    saw += [version for version in versions if version not in saw and version.tags.get(TAG_DATASET_DIGEST) in datasets]
    told = [{"model": MODEL_NAMES[one.kind], "version": one.version, "stage": one.stage} for one in saw]
    return sorted(told, key=lambda one: (one["model"], -one["version"]))
