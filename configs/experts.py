"""A mixture of experts: many small MLPs in a layer, of which each token uses a few."""

from typing import Literal

from frontrunner.configs.types import Count, Frozen, NonNegativeFloat, PositiveInt


class ExpertsSpec(Frozen):
    """Experts in place of a layer's MLP. They have no biases, and no token is dropped."""

    num_experts: PositiveInt
    """Experts of a layer, not counting shared ones."""
    experts_per_token: PositiveInt
    """Experts that the router chooses for a token (top-k)."""
    ffn_hidden_size: PositiveInt
    """Width of one expert's MLP."""
    shared_experts: Count = 0
    """Experts that every token also uses, as one MLP of this many times ffn_hidden_size."""
    shared_gate: bool = False
    """Weigh the shared experts by a sigmoid of the token (Qwen2-MoE)."""
    first_dense_layers: Count = 0
    """Layers at the start that keep a dense MLP of model.ffn_hidden_size."""
    every: PositiveInt = 1
    """Of the other layers, the last of each group of this many has experts; the rest are dense."""
    router: Literal["softmax", "sigmoid"] = "softmax"
    """Function from the router's logits to scores."""
    normalize: bool = True
    """Scale the scores of a token's experts so that their sum is 1."""
    aux_loss: NonNegativeFloat = 0.01
    """Weight of the load-balancing loss of each sequence; 0: none."""
    z_loss: NonNegativeFloat = 0.0
    """Weight of the mean squared log-sum-exp of the router's logits; 0: none."""

    def num_sparse(self, num_layers: int) -> int:
        """How many of the first ``num_layers`` layers have experts."""
        return max(0, num_layers - self.first_dense_layers) // self.every

    def sparse_layers(self, num_layers: int) -> list[bool]:
        """Whether each layer has experts."""
        return [
            layer >= self.first_dense_layers and (layer - self.first_dense_layers + 1) % self.every == 0
            for layer in range(num_layers)
        ]
