import dataclasses
import functools
import json
import signal
import socket
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from configs.rl import alpha_zero
from research import build, evaluate, train
from research.core import config as config_lib
from research.core import metrics
from research.core.errors import UserError
from research.rl import self_play
from research.rl.arena import Arena
from research.rl.games import KNOWN, Game
from research.rl.search import Choice, random_player
from research.rl.self_play import SelfPlay
from research.training.checkpoint import Checkpoints
from research.training.evaluate import to_host
from tests.rl import tiny
from tests.rl.perfect import GAME
from tests.test_train import assert_same_run, call, error, finish, spawn
from tests.tiny import devices

G, MOVES, KEPT, LEARNED = 6, 5, 20, 10
LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


@pytest.mark.parametrize("learned", [4, 99])
@pytest.mark.parametrize("made", [0, 5, 12, 17, 24, 36])
def test_outcomes_are_how_each_game_of_the_ring_ended(made, learned):
    """Games one after another, of lengths at random, against plain Python that sees all their moves; the ring is empty, half full, full, or written over."""
    rng, M = np.random.default_rng(made), 12
    player, over, rewards = rng.integers(0, 2, (4, made)), rng.random((4, made)) < 0.25, np.zeros((4, made, 2), np.float32)
    rewards[over, 0] = rng.integers(-1, 2, over.sum())
    rewards[..., 1] = -rewards[..., 0]
    ring = {
        "player": rng.integers(0, 2, (4, M)),
        "over": rng.random((4, M)) < 0.5,
        "rewards": rng.normal(size=(4, M, 2)),
    }  # where nothing was put yet: anything
    expected, known = {}, np.zeros((4, M), bool)
    for g in range(4):
        for t in range(max(0, made - M), made):
            for name, x in (("player", player), ("over", over), ("rewards", rewards)):
                ring[name][g, t % M] = x[g, t]
            if (end := [later for later in range(t, made) if over[g, later]]) and made - 1 - end[0] < learned:
                known[g, t % M], expected[g, t % M] = True, rewards[g, end[0], player[g, t]]
    found = outcomes(ring, (made - 1 - np.arange(M)) % M, made, learned)
    np.testing.assert_array_equal(found["known"], known)
    for place, value in expected.items():
        assert found["value"][place] == value


outcomes = jax.jit(self_play.outcomes, static_argnums=3)


@dataclasses.dataclass(frozen=True)
class Lots(Arena):
    """Makes any move alike, and tells which as the policy."""

    def player(self, params, explore=False):
        def play(key, state):
            choice = random_player(self.game)(key, state)
            return Choice(choice.action_G, jax.nn.one_hot(choice.action_G, self.game.actions), choice.value_G, choice.visits_GA)

        return play


def at_random(opening=3, games=G, rows=16, **changes) -> SelfPlay:
    arena = Lots(GAME, lambda params, inputs: {}, "gumbel", 1, ("random",), 2, opening)
    return SelfPlay(arena, {"valid": jax.ShapeDtypeStruct((rows,), bool)}, games, MOVES, KEPT, **changes)


def lived_through(experience, rounds=7):
    """All moves of the games, in order, and the last store."""
    store, history = experience.start(jax.random.key(0)), []
    for i in range(rounds):
        before = jax.device_get(store["ring"])
        store = experience.collect({}, store, jax.random.key(i))
        ring, new = jax.device_get(store["ring"]), (i * MOVES + np.arange(MOVES)) % KEPT
        for name in ("image", "policy", "legal", "player", "rewards", "over"):
            np.testing.assert_array_equal(np.delete(ring[name], new, 1), np.delete(before[name], new, 1), err_msg="what is newer stays")
        history.append({name: x[:, new] for name, x in ring.items()})
    assert store["moves"] == rounds * MOVES
    return {name: np.concatenate([part[name] for part in history], 1) for name in history[0]}, jax.device_get(store)


def check(history, store):
    """Plays all games once more, by the rules as Python has them, and asserts that the last store says how they ended for who moved."""
    moves, finished = history["over"].shape[1], 0
    for g in range(G):
        game, board = [], None  # moves so far, by their places in the history, and what they lead to
        for t in range(moves):
            mine, theirs = (set(np.flatnonzero(history["image"][g, t, :, :, plane])) for plane in (0, 1))
            action, mover = history["policy"][g, t].argmax(), history["player"][g, t]
            assert set(np.flatnonzero(history["legal"][g, t])) == set(range(9)) - mine - theirs and action not in mine | theirs
            if game:
                assert (mine, theirs) == board and mover == 1 - history["player"][g, t - 1]
            else:
                assert len(mine | theirs) <= 3 and len(theirs) - len(mine) in (0, 1), "the opening"
            game.append(t)
            mine = mine | {action}
            board = theirs, mine
            won = any(mine >= set(line) for line in LINES)
            over = won or len(mine | theirs) == 9
            assert history["over"][g, t] == over
            if over:
                finished += 1
                for back, then in enumerate(reversed(game)):
                    if then >= moves - KEPT:
                        assert store["ring"]["known"][g, then % KEPT] == (moves - t <= LEARNED), "all of a game, and as long as of any other"
                        assert store["ring"]["value"][g, then % KEPT] == won * (-1) ** back
                    else:
                        assert moves - t > LEARNED, "no game that is learned from is cut short"
                game = []
        assert not any(store["ring"]["known"][g, then % KEPT] for then in game), "the game under way"
    assert finished > 10


def test_a_position_is_worth_how_its_game_ended_for_who_moved():
    history, store = lived_through(at_random())
    check(history, store)
    values = store["ring"]["value"][store["ring"]["known"]]
    assert {-1, 0, 1} >= set(values) >= {-1, 1}
    assert len(set(history["image"][:, 0].sum((1, 2, 3)))) > 1, "games open with moves of other numbers"


def test_a_wrong_sign_shows(monkeypatch):
    right = self_play.outcomes

    def wrong(ring, *more):
        return right(ring | {"player": 1 - ring["player"]}, *more)

    monkeypatch.setattr(self_play, "outcomes", wrong)
    history, store = lived_through(at_random())
    with pytest.raises(AssertionError):
        check(history, store)


def ring_of(known_GM):
    """A ring whose values tell where each position stands."""
    known_GM = np.array(known_GM, bool)
    places = np.arange(known_GM.size, dtype=np.float32).reshape(known_GM.shape)
    return {
        "image": np.broadcast_to(places[..., None, None, None], (*places.shape, 3, 3, 2)),
        "policy": np.broadcast_to(places[..., None], (*places.shape, 9)),
        "legal": np.ones((*places.shape, 9), bool),
        "value": places,
        "known": known_GM,
    }


@pytest.mark.parametrize("games, rows", [(4, 8000), (6, 8004), (1, 4000)])
def test_each_position_whose_game_has_ended_is_drawn_as_often(games, rows):
    """Within a part of the games; one whose game is under way never is, as valid."""
    known_GM = np.random.default_rng(0).random((games, 10)) < 0.5
    known_GM[-1, 0], known_GM[0, :5] = True, True
    parts = np.gcd(games, rows)
    if games == 4:
        known_GM[2] = False  # a part of its own, of which there is nothing to learn
    batch = at_random(games=games, rows=rows).sample({"ring": ring_of(known_GM)}, 0, jax.random.key(0))
    place_B = np.asarray(batch["value"]).astype(int)
    np.testing.assert_array_equal(batch["valid"], known_GM.reshape(-1)[place_B])
    np.testing.assert_array_equal(batch["image"][:, 2, 1, 1], place_B)
    np.testing.assert_array_equal(batch["policy"][:, 4], place_B)
    known_PN = known_GM.reshape(parts, -1)
    expected_PN = known_PN * rows / parts / np.maximum(known_PN.sum(1, keepdims=True), 1)
    counts_PN = np.bincount(place_B[np.asarray(batch["valid"])], minlength=known_GM.size).reshape(parts, -1)
    assert (abs(counts_PN - expected_PN) < 4.5 * np.sqrt(expected_PN) + 1e-6).all()
    assert np.asarray(batch["valid"]).mean() == (0.75 if games == 4 else 1)


def test_nothing_is_learned_before_a_game_has_ended():
    experience = at_random(opening=0)
    store = experience.start(jax.random.key(0))
    assert not experience.sample(store, 0, jax.random.key(0))["valid"].any()
    store = experience.collect({}, store, jax.random.key(0))
    ended = store["ring"]["over"].any(1)
    batch = experience.sample(store, 0, jax.random.key(0))
    assert (np.asarray(batch["valid"]).any()) == ended.any() and not store["ring"]["known"][:, MOVES:].any()


@pytest.mark.parametrize("name", KNOWN)
def test_of_every_game_there_is_one_to_learn_from_and_the_longest_stays_whole(name):
    r = alpha_zero.get_config(name).rl
    lived = SelfPlay(Lots(Game(name), lambda params, inputs: {}, "gumbel", 1, ("random",), 2, 0), {}, r.games, r.moves, r.kept)
    longest = lived.game.longest
    assert lived.learned >= longest and lived.learned + longest - 1 <= r.kept and lived.learned % r.moves == 0
    with pytest.raises(UserError, match=f"set it to {lived.game.kept(r.moves)} or more"):
        dataclasses.replace(lived, kept=lived.game.kept(r.moves) - r.moves)


def test_a_ring_is_renewed_in_whole_rounds():
    with pytest.raises(UserError, match="rl.kept 20 is not a multiple of rl.moves=3"):
        dataclasses.replace(at_random(), moves=3)


def agent(devices=None, **changes):
    """The tiny agent and its experiment."""
    c = tiny.get_config()
    c.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return build.experiment(config_lib.changed(c, {}), devices=devices)


def rounds(e, workdir, steps=5):
    """The source, batches, metrics, parameters, and moves made by each of so many steps."""
    source = build.training_source(e, build.make_corpus(e.config, workdir))
    state, batches, losses, moves = jax.jit(e.init, out_shardings=e.shardings)(), [], [], []
    with e.in_force():
        for _ in range(steps):
            batch = source.next(state.params)
            state, means = e.train_step(state, e.place(batch, 16))
            batches.append(jax.device_get(batch))
            losses.append(to_host(means))
            moves.append(int(source.state()["arrays"]["moves"]))
    return source, batches, losses, jax.device_get(state.params), moves


@pytest.mark.slow
def test_one_device_equals_eight(tmp_path):
    """Five steps, and games before the first and the fourth: the same moves, the same batches."""
    (one, *alone), (eight, *split) = (rounds(agent(devices), tmp_path) for devices in (jax.devices()[:1], None))
    store = eight.state()["arrays"]
    for tree in (store["ring"], store["state"]):
        assert all(x.addressable_shards[0].data.shape[0] == 1 for x in jax.tree.leaves(tree)), "each device has its own games"
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)

    def same(a, b):
        a, b = np.asarray(a), np.asarray(b)
        close(a, b) if a.dtype == np.float32 else np.testing.assert_array_equal(a, b)

    jax.tree.map(same, jax.device_get(one.state()["arrays"]), jax.device_get(store))
    for a, b in zip(alone[0], split[0], strict=True):
        jax.tree.map(same, a, b)
    for a, b in zip(alone[1], split[1], strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    jax.tree.map(functools.partial(close, rtol=1e-3, atol=1e-4), alone[2], split[2])
    assert all(batch["valid"].all() for batch in alone[0]), "no step learns from nothing"
    first = alone[3][0]
    assert first >= 4 and alone[3] == split[3] == [first] * 3 + [first + 4] * 2, (
        "collected before the first step, until games had ended, and before the fourth"
    )
    assert one.state()["next"] == 5


TINY = "--config=tests/rl/tiny.py"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of seven steps in one go."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    call(train, TINY, f"--workdir={workdir}")
    return workdir


def source_arrays(workdir, step):
    tree = ocp.StandardCheckpointer().restore(workdir.absolute() / "checkpoints" / str(step) / "source_arrays")
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def same_experience(a, b, step):
    one, other = source_arrays(a, step), source_arrays(b, step)
    assert one.keys() == other.keys() and {"['ring']['image']", "['state']['_step_count']", "['moves']"} < one.keys()
    for name, x in one.items():
        np.testing.assert_array_equal(x, other[name], err_msg=name)


@pytest.mark.slow
def test_a_run_stopped_within_a_round_and_resumed_is_the_run_never_stopped(whole, tmp_path):
    """Bit for bit: figures, parameters, and the games under way."""
    assert "Step 4 of 7: stopped" in call(train, TINY, f"--workdir={tmp_path}/parts", "--until=4")  # where it is measured, not where it collects
    assert source_arrays(tmp_path / "parts", 4)["['moves']"] == source_arrays(whole, 7)["['moves']"] - 4
    call(train, TINY, f"--workdir={tmp_path}/parts")
    assert_same_run(whole, tmp_path / "parts", 7)
    same_experience(whole, tmp_path / "parts", 7)


def test_a_run_tells_what_it_was_made_of_and_is_measured_again_alike(whole):
    start = json.loads((whole / "provenance.json").read_text())["starts"][0]
    assert start["data"] == {"experience": {"environment": "tic_tac_toe", "version": GAME.env.version}}
    line = metrics.read_metrics(whole / "metrics.jsonl")[-1]
    assert json.loads(call(evaluate, f"--workdir={whole}")) == line and 0 <= line["validation/score_against_random"] <= 1


@pytest.mark.parametrize(
    "change, message",
    [
        ("rl.environment=backgammon", "rl.environment is 'backgammon': choose one of"),
        ("rl.kept=6", "rl.kept 6 is not a multiple of rl.moves=4"),
        (
            "rl.kept=16",
            "rl.kept 16: a game of tic_tac_toe may have 9 moves, which it must hold and be learned from for as many; set it to 20 or more",
        ),
        ("rl.eval_games=7", "rl.eval_games is 7: it is even"),
        ("rl.opponents=('randm',)", "rl.opponents has 'randm'"),
        ("rl.experience=selfplay", "rl.experience is 'selfplay': choose one of self_play"),
        ("rl.search=alpha_beta", "rl.search is 'alpha_beta'"),
        ("rl.environment=connect_four", "set model.image_size=6, model.image_width=7"),
        ("objective.actions=7", "objective.actions=9"),
        ("objective.name=image_classification", "alpha_zero is"),
        ("rl.games=4", "rl.games 4 does not divide over the 8 shards"),
        ("run.best_metric=validation/loss", "choose one of validation/score_against_random"),
    ],
)
def test_wrong_input_is_one_line(change, message, tmp_path):
    assert message in error(train, TINY, f"--workdir={tmp_path}/run", f"--config.{change}")


@pytest.mark.parametrize(
    "game, change, message",
    [
        ("connect_four", "objective.symmetry=half_turn", "what is so turned is another position in connect_four: choose none or reflection"),
        ("connect_four", "rl.opponents=('perfect',)", "are too many: they are for tic_tac_toe"),
        ("go_9x9", "rl.kept=160", "a game of go_9x9 may have 162 moves"),
    ],
)
def test_what_does_not_fit_a_game_is_one_line(game, change, message, tmp_path):
    assert message in error(train, f"{TINY}:{game}", f"--workdir={tmp_path}/run", f"--config.{change}")


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(tmp_path):
    """Two hosts with four devices each live through what one with eight does."""
    finish(spawn(TINY, f"--workdir={tmp_path}/one", **devices(8)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = devices(4) | {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free.getsockname()[1]}", "JAX_NUM_PROCESSES": "2"}
    two = [spawn(TINY, f"--workdir={tmp_path}/two", "--distributed", **meeting, JAX_PROCESS_ID=str(i)) for i in range(2)]
    for process in two:
        finish(process)
    one, two = (metrics.read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_killed_run_ends_as_one_never_killed(tmp_path):
    arguments = [TINY, "--config.run.steps=400", "--config.run.save_every=25", "--config.run.eval_every=400"]
    finish(spawn(*arguments, f"--workdir={tmp_path}/never"))
    killed, deadline = spawn(*arguments, f"--workdir={tmp_path}/killed"), time.time() + 200
    while time.time() < deadline and not any(line["step"] >= 60 for line in metrics.read_metrics(tmp_path / "killed" / "metrics.jsonl")):
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    finish(killed, code=-9)
    assert 60 <= metrics.read_metrics(tmp_path / "killed" / "metrics.jsonl")[-1]["step"] < 400, "the kill came too late to mean anything"
    finish(spawn(*arguments, f"--workdir={tmp_path}/killed"))
    assert_same_run(tmp_path / "never", tmp_path / "killed", 400)
    same_experience(tmp_path / "never", tmp_path / "killed", 400)


def test_what_eight_devices_lived_through_comes_back_on_one(whole, tmp_path):
    e = agent(jax.devices()[:1])
    source = build.training_source(e, build.make_corpus(e.config, tmp_path))
    source.restore(Checkpoints(whole, read_only=True).restore(e.shapes, e.shardings, source.state())[1])
    assert source.state()["next"] == 7
    found = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(source.state()["arrays"]["ring"])}
    stored = source_arrays(whole, 7)
    assert source.state()["arrays"]["moves"] == stored["['moves']"] > 0
    for name, x in found.items():
        np.testing.assert_array_equal(x, stored["['ring']" + name])
        assert len(x.sharding.device_set) == 1
    assert type(source.state()["arrays"]["state"]) is type(GAME.env.init(jax.random.key(0)))
