"""Monte Carlo tree search, by mctx, with the true game as its model.

G games at once, A actions. An evaluation is a function (key, state) -> (logits_GA, value_G): what to try, and how the game will end for whoever is to
move. A player is a function (key, state) -> Choice.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mctx
from flax import linen as nn

from research.core.config import look_up
from research.core.sharding import constrain
from research.rl.games import Game, reward_of

ILLEGAL = -1e9  # the logit of a move that is not allowed
FIRST = 100.0  # over any value and its bonus
EXPLORATION = 2**0.5  # of UCB1, where values lie in [-1, 1]


class Choice(NamedTuple):
    """What a player found at each position."""

    action_G: Any  # int32, the move it makes
    policy_GA: Any  # float32, what the search makes of the prior: the target of training
    value_G: Any  # float32, what it expects of that move, for whoever makes it
    visits_GA: Any  # int32, simulations that went through each move


Evaluation = Callable[[Any, Any], tuple[Any, Any]]
Player = Callable[[Any, Any], Choice]


def network(predict: Callable, params) -> Evaluation:
    """The evaluation by an objective's `predict`. The parameters are made whole once, not at each of its calls."""
    params = jax.tree.map(lambda x: constrain(x, *[None] * jnp.ndim(x)), params)

    def evaluate(key, state):
        found = predict(params, {"image": state.observation})
        return found["policy"], found["value"]

    return evaluate


def rollouts(game: Game) -> Evaluation:
    """The evaluation of plain Monte Carlo: all moves alike, and how the game ends if both go on at random."""

    def evaluate(key, state):
        player_G = state.current_player

        def move(carry):
            state, total_G, key = carry
            key, now = jax.random.split(key)
            state = game.step(state, jax.random.categorical(now, legal(jnp.zeros(state.legal_action_mask.shape), state)))
            return state, total_G + reward_of(state, player_G), key

        _, total_G, _ = jax.lax.while_loop(lambda carry: ~carry[0].terminated.all(), move, (state, jnp.zeros(player_G.shape), key))
        return jnp.zeros(state.legal_action_mask.shape), total_G

    return evaluate


def legal(logits_GA, state):
    return jnp.where(state.legal_action_mask, logits_GA, ILLEGAL)


def gumbel(game: Game, evaluate: Evaluation, simulations: int, explore: bool) -> Player:
    """Gumbel AlphaZero (Danihelka et al., ICLR 2022): moves are drawn without replacement, and halved in turn; good with few simulations.

    Without `explore` nothing is drawn: the move is the best. A move is worth the mean over the replies that were tried, bad ones among them, so that even who
    knows what each position is worth, and nothing of the moves, errs now and then: with 24 to 128 simulations 1 to 3 of all games of tic-tac-toe are lost
    that there can be, by PUCT none.
    """
    search = functools.partial(mctx.gumbel_muzero_policy, gumbel_scale=float(explore))
    return _player(game, evaluate, simulations, search)


def puct(game: Game, evaluate: Evaluation, simulations: int, explore: bool) -> Player:
    """PUCT with values between the least and the greatest that were met (MuZero, Schrittwieser et al., arXiv 1911.08265, appendix B), and noise on the prior of
    the root. Without `explore` no noise, and the move most visited."""
    search = functools.partial(mctx.muzero_policy, dirichlet_fraction=0.25 * explore, dirichlet_alpha=10 / game.actions, temperature=float(explore))
    return _player(game, evaluate, simulations, search)


def uct(game: Game, simulations: int) -> Player:
    """Plain Monte Carlo tree search, which has learned nothing: UCB1 down the tree (Kocsis & Szepesvari, 2006), a random game at its end, the move most
    visited."""

    def select(key, tree, node, depth):
        visits_A, illegal_A = tree.children_visits[node], tree.children_prior_logits[node] <= ILLEGAL
        bonus_A = EXPLORATION * jnp.sqrt(jnp.log(jnp.maximum(tree.node_visits[node], 1)) / jnp.maximum(visits_A, 1))
        # All that have not been tried go first and are alike: one of them at random.
        untried_A = FIRST + jax.random.uniform(key, visits_A.shape)
        score_A = jnp.where(visits_A == 0, untried_A, tree.qvalues(node) + bonus_A)
        return jnp.where(illegal_A, -jnp.inf, score_A).argmax().astype(jnp.int32)

    def search(params, key, root, recurrent, simulations, invalid_actions):
        tree = mctx.search(
            params=params,
            rng_key=key,
            root=root,
            recurrent_fn=recurrent,
            root_action_selection_fn=functools.partial(select, depth=0),
            interior_action_selection_fn=select,
            num_simulations=simulations,
            invalid_actions=invalid_actions,
        )
        weights_GA = tree.summary().visit_probs
        return mctx.PolicyOutput(action=weights_GA.argmax(-1), action_weights=weights_GA, search_tree=tree)

    return _player(game, rollouts(game), simulations, search)


SEARCHES = {"gumbel": gumbel, "puct": puct}


def searching(game: Game, evaluate: Evaluation, name: str, simulations: int, explore: bool) -> Player:
    """The player that a config's rl.search names."""
    return look_up(SEARCHES, name, "rl.search")(game, evaluate, simulations, explore)


def random_player(game: Game) -> Player:
    """Any move that is allowed."""

    def play(key, state):
        logits_GA = legal(jnp.zeros(state.legal_action_mask.shape), state)
        action_G = jax.random.categorical(key, logits_GA)
        none_GA = jnp.zeros(logits_GA.shape, jnp.int32)
        return Choice(action_G, jax.nn.softmax(logits_GA), jnp.zeros(action_G.shape), none_GA)

    return play


def _player(game: Game, evaluate: Evaluation, simulations: int, search: Callable) -> Player:
    def look_ahead(_, key, action_G, state):
        player_G = state.current_player
        state = game.step(state, action_G)
        logits_GA, value_G = evaluate(key, state)
        over_G = state.terminated
        # Moves alternate: what is good for whoever comes next is bad for whoever has moved.
        output = mctx.RecurrentFnOutput(
            reward=reward_of(state, player_G),
            discount=jnp.where(over_G, 0.0, -1.0),
            prior_logits=legal(logits_GA, state),
            value=jnp.where(over_G, 0.0, value_G),
        )
        return output, state

    def play(key, state):
        now, later = jax.random.split(key)
        logits_GA, value_G = evaluate(now, state)
        root = mctx.RootFnOutput(prior_logits=legal(logits_GA, state), value=value_G, embedding=state)
        output = search(None, later, root, look_ahead, simulations, invalid_actions=~state.legal_action_mask)
        summary = output.search_tree.summary()
        value_G = jnp.take_along_axis(summary.qvalues, output.action[:, None], axis=1)[:, 0]
        return Choice(output.action, output.action_weights, value_G, summary.visit_counts.astype(jnp.int32))

    def apart(key, state):
        """Each game for itself: else the partitioner, which cannot tell that no game looks into another's tree, gathers all of them at each simulation."""
        one = lambda key, state: jax.tree.map(lambda x: x[0], play(key, jax.tree.map(lambda x: x[None], state)))
        with nn.logical_axis_rules(()):  # of one game nothing is split
            return jax.vmap(one)(jax.random.split(key, len(state.terminated)), state)

    return apart
