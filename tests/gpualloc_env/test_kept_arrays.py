import numpy as np
import pytest
from gpualloc_env.simulation.buffers import buffers

LARGE = (4, 2**14)


@pytest.mark.parametrize("shape", [(2, 3), LARGE])
def test_an_array_that_somebody_holds_is_never_given_again(shape):
    take = buffers(shape, np.float64)
    held = [take() for _ in range(10)]
    for number, array in enumerate(held):
        array[...] = number
    view, row = take()[1:], take()[0].T
    view[...], row[...] = 10, 11
    for _ in range(10):
        take()[...] = -1
    assert all((array == number).all() for number, array in enumerate(held))
    assert (view == 10).all() and (row == 11).all()


def test_a_large_array_that_nobody_holds_is_given_again():
    take = buffers(LARGE, np.float32)
    first = take()
    address = first.ctypes.data
    second = take()
    assert second.ctypes.data != address
    del first
    assert take().ctypes.data == address


def test_a_batch_keeps_its_hands_off_what_a_caller_kept():
    import gymnasium as gym

    env = gym.make_vec("gpualloc_env:GPUAlloc-v0", num_envs=512, vectorization_mode="vector_entry_point")
    kept = [env.reset(seed=0)[0]]
    copies = [kept[0].copy()]
    shares = []
    for _ in range(12):
        observation, *_, info = env.step(np.full((512, 4), 0.25, np.float32))
        kept.append(observation)
        copies.append(observation.copy())
        shares.append((info["queue"], info["queue"].copy()))
    assert all((array == copy).all() for array, copy in zip(kept, copies, strict=True))
    assert all((array == copy).all() for array, copy in shares)
