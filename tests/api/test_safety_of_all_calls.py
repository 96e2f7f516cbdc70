"""Random sequences of all calls by many people: nobody hidden, separated, excluded, decided or unfit is ever shown.

What is true is kept in a few sets beside, and every list that is answered is held against them: on each page, in each
batch, whether people are named by number or by text.
"""

from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import PEOPLE, Served
from tests.conftest import empty_tables
from tests.serving_world import insert_people
from tests.waiting import until

PERSON = st.integers(1, PEOPLE + 4)
KIND = st.sampled_from(
    ["like", "like", "superlike", "pass", "block", "report", "message", "unlike", "unlike", "unblock", "unblock"]
)
EVENT = st.tuples(PERSON, PERSON, KIND)
LIKES = {"like", "superlike"}
SEEKING = st.sampled_from([[], ["man"], ["woman"], ["man", "woman"]])
GUEST = 0
"""Nobody's id: whoever asks with a profile alone."""
FILTERS = st.sampled_from(
    [
        None,
        None,
        {"attributes": {"children": {"in": [0, 2]}}},
        {"attributes": {"children": {"gte": 1}, "smoker": {"is": False}}},
        {"attributes": {"city": {"in": ["Ghent", "Rome"]}}},
        {"attributes": {"city": {"in": ["Ghent"]}, "smoker": {"is": True}}},
    ]
)
OWN = st.fixed_dictionaries(
    {},
    optional={
        "children": st.integers(0, 2),
        "city": st.sampled_from(["Ghent", "ghent", "Bruges"]),
        "smoker": st.sampled_from([True, False, "true", 1]),
    },
)
"""Attributes that somebody has; a smoker may be told in other ways than by a flag."""
STEP = st.one_of(
    st.tuples(st.just("recommend"), PERSON, st.integers(1, 12), st.lists(PERSON, max_size=6), st.booleans(), FILTERS),
    st.tuples(st.just("recommend_all"), st.lists(PERSON, min_size=1, max_size=4), st.booleans(), FILTERS),
    st.tuples(st.just("guest"), SEEKING, st.lists(PERSON, max_size=4), st.booleans(), FILTERS),
    st.tuples(st.just("similar"), PERSON, PERSON, st.integers(1, 12)),
    st.tuples(st.just("interact"), EVENT),
    st.tuples(st.just("interact_all"), st.lists(EVENT, min_size=1, max_size=6)),
    st.tuples(st.just("hide"), PERSON),
    st.tuples(st.just("show"), PERSON),
    st.tuples(st.just("seek"), PERSON, SEEKING),
    st.tuples(st.just("put"), PERSON, SEEKING, OWN),
    st.tuples(st.just("tell"), PERSON, OWN),
    st.tuples(st.just("matches"), PERSON, st.booleans()),
)


def gender(user_id: int) -> str:
    return "woman" if user_id % 2 or user_id == GUEST else "man"


@dataclass
class Truth:
    """What is true of everybody after the calls so far."""

    town: Served
    seeking: dict[int, list[str]] = field(
        default_factory=lambda: {n: ["man" if n % 2 else "woman"] for n in range(1, PEOPLE + 1)}
    )
    own: dict[int, dict[str, Any]] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    decided: dict[int, dict[int, str]] = field(default_factory=dict)
    blocked: set[tuple[int, int]] = field(default_factory=set)
    reported: set[frozenset[int]] = field(default_factory=set)

    def accepts(self, one: int, other: int) -> bool:
        return not self.seeking[one] or gender(other) in self.seeking[one]

    def check(self, asker: int, shown: list[int], unwanted: set[int]) -> None:
        assert len(set(shown)) == len(shown)
        for other in shown:
            assert other != asker
            assert other not in self.hidden
            assert other not in self.decided.get(asker, {})
            assert not self._apart(asker, other)
            assert other not in unwanted
            assert self.accepts(asker, other)
            assert self.accepts(other, asker)

    def meets(self, other: int, filters: dict[str, Any]) -> bool:
        own = self.own.get(other, {})
        return all(
            name in own
            and (own[name] is wish["is"] if "is" in wish else own[name] in wish.get("in", [own[name]]))
            and own[name] >= wish.get("gte", own[name])
            for name, wish in filters["attributes"].items()
        )

    def recommend(
        self,
        asker: int,
        limit: int,
        exclude: list[int],
        as_text: bool,  # noqa: FBT001 drawn
        filters: dict[str, Any] | None,
    ) -> None:
        body: dict[str, Any] = {"user_id": named(asker, as_text), "limit": limit, "filters": filters}
        body |= {"exclude": [named(other, as_text) for other in exclude]} if exclude else {}
        unwanted = set(exclude)
        for _ in range(3):
            answer = self._asked("/v1/recommendations", body)
            if answer is None:
                return
            if asker not in self.seeking:
                assert answer.status_code == 404
                return
            assert answer.status_code == 200, answer.text
            shown = ids(answer.json())
            self.check(asker, shown, unwanted)
            assert filters is None or all(self.meets(other, filters) for other in shown)
            unwanted |= set(shown)
            if answer.json()["next"] is None:
                return
            body["cursor"] = answer.json()["next"]

    def recommend_all(
        self,
        askers: list[int],
        as_text: bool,  # noqa: FBT001 drawn
        filters: dict[str, Any] | None,
    ) -> None:
        body = {"user_ids": [named(asker, as_text) for asker in askers], "limit": 8, "filters": filters}
        answer = self._asked("/v1/recommendations:batch", body)
        if answer is None:
            return
        assert answer.status_code == 200, answer.text
        for asker, result in zip(askers, answer.json()["results"], strict=True):
            assert (result["answer"] is not None) == (asker in self.seeking)
            if result["answer"] is not None:
                self.check(asker, ids(result["answer"]), set())
                assert filters is None or all(self.meets(other, filters) for other in ids(result["answer"]))

    def guest(
        self,
        seeking: list[str],
        decided: list[int],
        as_text: bool,  # noqa: FBT001 drawn
        filters: dict[str, Any] | None,
    ) -> None:
        """Ask as a woman without an id."""
        profile = {"gender": gender(GUEST), "seeking": seeking, "latitude": 51.05, "longitude": 3.72}
        named_by = "text" if as_text else "number"
        body: dict[str, Any] = {"guest": profile, "limit": 9, "filters": filters, "named_by": named_by}
        body |= {"liked": decided[:2], "passed": decided[2:]}
        seen = set(decided)
        for _ in range(2):
            answer = self._asked("/v1/recommendations:guest", body)
            if answer is None:
                return
            assert answer.status_code == 200, answer.text
            shown = ids(answer.json())
            assert not seen & {*shown}
            assert not self.hidden & {*shown}
            assert all(not seeking or gender(other) in seeking for other in shown)
            assert all(self.accepts(other, GUEST) for other in shown)
            assert filters is None or all(self.meets(other, filters) for other in shown)
            seen |= set(shown)
            if answer.json()["next"] is None:
                return
            body["cursor"] = answer.json()["next"]

    def similar(self, anchor: int, asker: int, limit: int) -> None:
        query = {"requester_id": asker, "limit": limit}
        answer = self.town.client.get(f"/v1/people/{anchor}/similar", params=query)
        unseen = anchor != asker and (anchor in self.hidden or self._apart(anchor, asker))
        if unseen or not {anchor, asker} <= self.seeking.keys():
            assert answer.status_code == 404
            return
        assert answer.status_code == 200, answer.text
        self.check(asker, ids(answer.json()), {anchor})

    def interact(self, event: tuple[int, int, str]) -> None:
        actor, target, kind = event
        answer = self.town.client.post("/v1/interactions", json=told(event))
        if actor == target or not {actor, target} <= self.seeking.keys():
            assert answer.status_code in {404, 422}
            return
        assert answer.status_code == 201, answer.text
        self._note(actor, target, kind)
        if kind in {"like", "superlike"}:
            assert answer.json()["matched"] == self._matched(actor, target)

    def interact_all(self, events: list[tuple[int, int, str]]) -> None:
        answer = self.town.client.post("/v1/interactions:batch", json={"interactions": [told(e) for e in events]})
        assert answer.status_code == 200, answer.text
        for (actor, target, kind), result in zip(events, answer.json()["results"], strict=True):
            possible = actor != target and {actor, target} <= self.seeking.keys()
            assert result["status"] == ("stored" if possible else "refused")
            if possible:
                self._note(actor, target, kind)

    def hide(self, user_id: int) -> None:
        if self._told(self.town.client.post(f"/v1/people/{user_id}/hide"), user_id):
            self.hidden.add(user_id)

    def show(self, user_id: int) -> None:
        if self._told(self.town.client.post(f"/v1/people/{user_id}/show"), user_id):
            self.hidden.discard(user_id)

    def seek(self, user_id: int, seeking: list[str]) -> None:
        if self._told(self.town.client.patch(f"/v1/people/{user_id}", json={"seeking": seeking}), user_id):
            self.seeking[user_id] = seeking

    def put(self, user_id: int, seeking: list[str], own: dict[str, Any]) -> None:
        profile = {"gender": gender(user_id), "seeking": seeking, "latitude": 51.05, "longitude": 3.72}
        profile["attributes"] = own
        answer = self.town.client.put(f"/v1/people/{user_id}", json=profile)
        assert answer.status_code == (200 if user_id in self.seeking else 201), answer.text
        self.seeking[user_id] = seeking
        self.own[user_id] = own

    def tell(self, user_id: int, own: dict[str, Any]) -> None:
        if self._told(self.town.client.patch(f"/v1/people/{user_id}", json={"attributes": own}), user_id):
            self.own[user_id] = {**self.own.get(user_id, {}), **own}

    def matches(self, user_id: int, as_text: bool) -> None:  # noqa: FBT001 drawn
        del as_text
        answer = self.town.client.get(f"/v1/people/{user_id}/matches", params={"limit": 100})
        if not self._told(answer, user_id):
            return
        others = self.seeking.keys() - self.hidden
        assert set(ids(answer.json())) == {other for other in others if self._matched(user_id, other)}

    def _asked(self, path: str, body: dict[str, Any]) -> httpx.Response | None:
        """Ask, and again until the app has heard of all attributes: it refuses a filter till then.

        None where it is refused because nobody has one of them any more, in the way that is asked for.
        """
        answers: list[httpx.Response] = []

        def known() -> bool:
            answers.append(self.town.client.post(path, json=body))
            return answers[-1].status_code != 422 or not self._held(body["filters"])

        until(known, instead=lambda: answers[-1].text)
        return None if answers[-1].status_code == 422 else answers[-1]

    def _held(self, filters: dict[str, Any] | None) -> bool:
        """Say whether somebody who is shown has each attribute as a number, as text, or as a flag, as is asked for."""
        kinds = {"children": int, "city": str, "smoker": bool}
        shown = [own for user_id, own in self.own.items() if user_id not in self.hidden]
        return filters is None or all(
            any(type(own.get(name)) is kinds[name] for own in shown) for name in filters["attributes"]
        )

    def _told(self, answer: Any, user_id: int) -> bool:
        assert answer.status_code == (200 if user_id in self.seeking else 404), answer.text
        return user_id in self.seeking

    def _note(self, actor: int, target: int, kind: str) -> None:
        decided = self.decided.setdefault(actor, {})
        if kind == "report":
            self.reported.add(frozenset({actor, target}))
        elif kind == "block":
            self.blocked.add((actor, target))
        elif kind == "unblock" and (actor, target) in self.blocked:
            self.blocked.remove((actor, target))
            self._forget_like(actor, target)
            self._forget_like(target, actor)
        elif kind == "unlike":
            self._forget_like(actor, target)
        elif kind in {*LIKES, "pass"}:
            decided[target] = kind

    def _forget_like(self, actor: int, target: int) -> None:
        if self.decided.get(actor, {}).get(target) in LIKES:
            del self.decided[actor][target]

    def _apart(self, one: int, other: int) -> bool:
        return frozenset({one, other}) in self.reported or bool({(one, other), (other, one)} & self.blocked)

    def _matched(self, one: int, other: int) -> bool:
        return (
            self.decided.get(one, {}).get(other) in LIKES
            and self.decided.get(other, {}).get(one) in LIKES
            and not self._apart(one, other)
        )


def named(user_id: int, as_text: bool) -> int | str:  # noqa: FBT001 drawn
    return str(user_id) if as_text else user_id


def told(event: tuple[int, int, str]) -> dict[str, Any]:
    return {"actor_id": event[0], "target_id": event[1], "kind": event[2]}


def ids(answer: dict[str, Any]) -> list[int]:
    return [int(item["user_id"]) for item in answer["items"]]


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False)
@given(st.lists(STEP, min_size=25, max_size=40))
def test_nobody_is_ever_shown_who_may_not_be(
    town: Served, connection: psycopg.Connection[Any], steps: list[tuple[Any, ...]]
) -> None:
    empty_tables(connection)
    insert_people(connection, PEOPLE)
    connection.execute("insert into duet.attribute_slots (name, slot) values ('children', 0)")
    connection.execute("""update duet.users set attributes = '{"city": "Ghent", "smoker": true}' where user_id = 1""")
    connection.commit()
    truth = Truth(town, own={1: {"city": "Ghent", "smoker": True}})
    for name, *arguments in steps:
        getattr(truth, name)(*arguments)
