"""How much better than expected what was done turned out: what a policy gradient weighs actions with. Pure functions, float32."""

import jax
import jax.numpy as jnp

from research.core.errors import UserError


def gae(rewards_BT, values_BT, next_values_BT, continues_BT, discount: float, decay: float):
    """Generalized advantage estimation (Schulman et al., arXiv 1506.02438, eq. 16) -> advantages (B, T) float32.

    A_t = d_t + discount decay A_{t+1} where the step after belongs to the same episode, continues_BT, bool, else A_t = d_t;
    d_t = r_t + discount V'_t - V_t, V_t the value of the state in which step t is taken, V'_t that of the state it leads to: 0 where the episode ends
    there, but not where it is only cut off, as it is after the last column.
    """
    surprise_BT = rewards_BT + discount * next_values_BT - values_BT
    carry_BT = discount * decay * continues_BT

    def step(after_B, x):
        surprise_B, carry_B = x
        advantage_B = surprise_B + carry_B * after_B
        return advantage_B, advantage_B

    _, advantages_TB = jax.lax.scan(step, jnp.zeros(surprise_BT.shape[0]), (surprise_BT.T, carry_BT.T), reverse=True)
    return advantages_TB.T


def group_relative(rewards_B, group: int, normalise: bool):
    """Of each reward how far it is over the mean of its group, `group` rows that lie together -> (B,) float32.

    `normalise`: in standard deviations of the group, those of all of it, not of a sample (GRPO, Shao et al., arXiv 2402.03300, section 4.1.2).
    Without it (Dr. GRPO, Liu et al., arXiv 2503.20783, section 3.2) groups that nearly agree weigh no more than others. A group that agrees has 0.
    """
    rewards_GN = _groups(rewards_B, group)
    centred_GN = rewards_GN - rewards_GN.mean(1, keepdims=True)
    return (centred_GN / (rewards_GN.std(1, keepdims=True) + 1e-6) if normalise else centred_GN).reshape(-1)


def leave_one_out(rewards_B, group: int):
    """Of each reward how far it is over the mean of the others of its group, `group` rows that lie together -> (B,) float32.

    RLOO (Kool et al., 2019; Ahmadian et al., arXiv 2402.14740): a baseline that depends on nothing of the row itself, so that the gradient stays
    unbiased.
    """
    rewards_GN = _groups(rewards_B, group)
    others_GN = (rewards_GN.sum(1, keepdims=True) - rewards_GN) / (group - 1)
    return (rewards_GN - others_GN).reshape(-1)


def _groups(rewards_B, group: int):
    """(G, N), each less the first of its group, which changes nothing of what is compared: so equal rewards are 0, where their mean would round."""
    if group < 2 or len(rewards_B) % group:
        raise UserError(
            f"{len(rewards_B)} completions in groups of {group}: those of a prompt are compared, so that there must be at least 2 of each."
        )
    rewards_GN = jnp.asarray(rewards_B, jnp.float32).reshape(-1, group)
    return rewards_GN - rewards_GN[:, :1]
