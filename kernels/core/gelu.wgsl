// y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), written with u = 2 sqrt(2/pi) (x + 0.044715 x^3):
// (1 + tanh(u/2)) / 2 = sigmoid(u), whose exponential overflows to a harmless 1 / infinity where tanh would be NaN on
// drivers that build it from two exponentials.
fn gelu(value: ELEMENT) -> ELEMENT {
  let u = 1.5957691216 * (value + 0.044715 * value * value * value);
  return value / (1.0 + exp(-clamp(u, ELEMENT(-80.0), ELEMENT(80.0))));
}
