"""Sources of codecs as another package would bring them: one file each, and a number in their names."""

STEPS = '''
"""stepsN: whole multiples of a step of 2**-N of each row's largest value a channel."""
import numpy as np
from stores.codecs.contract import Part, error_figures, finite_float32
from stores.errors import CodecError

NUMBERS = (10,)

class Steps:
    required_features = ("toy-steps",)

    def __init__(self, number):
        self.steps = np.float32(2**number)

    def parts(self, channels):
        return {
            "q": Part(dtype=np.dtype("<i2"), fill=-32768, width=channels),
            "gain": Part(dtype=np.dtype("<f4"), width=channels, per_cell=False),
        }

    def encode(self, x):
        exact = finite_float32(x)
        if np.abs(exact).max() > 1e30:
            raise CodecError("a feature exceeds 1e30")
        gain = np.abs(exact).max(axis=(-3, -2))
        divisor = np.where(gain == 0, np.float32(np.inf), gain)
        q = np.rint(exact / divisor[..., None, None, :] * self.steps)
        return {"q": q.astype(np.int16), "gain": gain}

    def decode(self, encoded):
        return encoded["q"] / self.steps * encoded["gain"][..., None, None, :]

    def check(self, encoded):
        if encoded["q"].min() < -self.steps:
            raise CodecError("q is below its range")
        if not np.isfinite(encoded["gain"]).all() or (encoded["gain"] < 0).any():
            raise CodecError("a gain is negative or not finite")

    def error_figures(self, x):
        return error_figures(x, self.decode(self.encode(x)))

def parse(number):
    if not 4 <= number <= 14:
        raise CodecError(f"steps{number}: expected 4 to 14")
    return Steps(number)
'''

FITTED = '''
"""fitN: errors of N hundredths of a channel's deviation, which is fitted to sample rows."""
import numpy as np
from stores.codecs.contract import Part, error_figures, finite_float32
from stores.errors import CodecError

NUMBERS = (2,)

class Fitted:
    required_features = ("toy-fit",)

    def __init__(self, number, state=None):
        self.number, self.state = number, state

    def fit(self, x):
        tokens = finite_float32(x).reshape(-1, x.shape[-1]).astype(np.float64)
        step = tokens.std(axis=0) * self.number / 100 * 12**0.5
        mean, step = tokens.mean(axis=0), np.maximum(step, 1e-30)
        return {"mean": mean.astype(np.float32), "step": step.astype(np.float32)}

    def with_state(self, state):
        if sorted(state) != ["mean", "step"] or not (state["step"] > 0).all():
            raise CodecError(f"fit{self.number}: not a state of this codec: {sorted(state)}")
        return Fitted(self.number, dict(state))

    def parts(self, channels):
        return {"q": Part(dtype=np.dtype("<i2"), fill=-32768, width=channels)}

    def _fitted(self):
        if self.state is None:
            raise CodecError(f"fit{self.number} has to be fitted first")
        return self.state["mean"], self.state["step"]

    def encode(self, x):
        exact = finite_float32(x)
        mean, step = self._fitted()
        q = np.rint((exact - mean) / step)
        if np.abs(q).max() > 32767:
            raise CodecError("a code exceeds 16 bits")
        return {"q": q.astype(np.int16)}

    def decode(self, encoded):
        mean, step = self._fitted()
        return encoded["q"].astype(np.float32) * step + mean

    def check(self, encoded):
        self._fitted()
        if encoded["q"].min() < -32767:
            raise CodecError("q holds the value of absent chunks")

    def error_figures(self, x):
        return error_figures(x, self.decode(self.encode(x)))

def parse(number):
    if not 1 <= number <= 9:
        raise CodecError(f"fit{number}: expected 1 to 9")
    return Fitted(number)
'''

MODULES = {"toy_steps": STEPS, "toy_fit": FITTED}
ENTRY_POINTS = {"permafrost.codecs": {"steps": "toy_steps", "fit": "toy_fit"}}
