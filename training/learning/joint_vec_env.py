"""What stable-baselines3 asks of environments that are rows of the same arrays."""

from typing import Any, ClassVar

from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices


class JointVecEnv(VecEnv):
    """Environments that share their attributes: none of them can be called, changed or wrapped alone."""

    whole: ClassVar[str]
    """What they are together, as messages call it."""

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The same attribute for each environment asked for."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: the environments share their attributes."""
        raise AttributeError(
            f"cannot set {attr_name!r}: the environments of a {self.whole} share one scenario"
        )

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Refuse: there are no single environments to call."""
        raise AttributeError(f"cannot call {method_name!r}: a {self.whole} has no single environments")

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """No environment is wrapped."""
        return [False for _ in self._get_indices(indices)]
