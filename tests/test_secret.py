"""Generators whose state comes from the operating system alone."""

import numpy as np
import torch

from surefoot._numerics.secret import FIRST, WORDS, is_secret, secret_generator


def words_of(generator):
    state = generator.get_state()[FIRST : FIRST + 8 * WORDS].numpy().tobytes()
    return np.frombuffer(state, np.uint64)


def test_two_of_them_differ_and_the_global_seed_has_no_part():
    torch.manual_seed(0)
    one = torch.randn(4, generator=secret_generator())
    torch.manual_seed(0)
    assert not torch.equal(one, torch.randn(4, generator=secret_generator()))


def test_the_whole_state_is_drawn_and_not_the_32_bits_of_a_seed():
    """An independent Mersenne Twister, NumPy's, on the same words gives torch's bits."""
    generator = secret_generator()
    words = words_of(generator)
    assert words.max() < 2**32
    again = torch.Generator().manual_seed(generator.initial_seed())
    assert not np.array_equal(words, words_of(again))
    twister = np.random.MT19937()
    twister.state = {
        "bit_generator": "MT19937",
        "state": {"key": words.astype(np.uint32), "pos": WORDS},
    }
    drawn = torch.randint(0, 2**31, (1000,), generator=generator) % 2**31
    # One word or two a number, by torch's own rule: all of them are in the stream.
    stream = {int(twister.random_raw()) % 2**31 for _ in range(2000)}
    assert set(drawn.tolist()) <= stream


def test_torch_itself_uses_32_bits_of_a_seed():
    """Why `manual_seed` with 64 bits of the operating system would not do."""
    a, b = (torch.randn(3, generator=torch.Generator().manual_seed(1 + k)) for k in (0, 2**32))
    assert torch.equal(a, b)


def test_who_seeds_it_has_no_secret_any_more():
    generator = secret_generator()
    assert is_secret(generator)
    torch.randn(3, generator=generator)
    assert is_secret(generator)
    generator.manual_seed(0)
    assert not is_secret(generator)
    assert not is_secret(torch.Generator())
    assert not is_secret(torch.Generator().manual_seed(generator.initial_seed()))
