// What the forward and both backward kernels share: the gate on edge (i, j), computed the same way in each so that a
// mask recomputed is the mask that was used.
//
// With VARIANT GATED, an edge with scaled score l has gate logit g = l + bias and is open with probability sigmoid(g).
// NOISE adds logistic noise to g (training); without it the gate is open where g > 0 (evaluation). Neither: dense.
struct Gate {
  seed: u32,
  step: u32,
  layer: u32,
  // Rows are counted over the whole batch, so that the noise does not depend on how a batch is cut in micro-batches.
  first_row: u32,
  bias: f32,
  inverse_temperature: f32,
  // d(objective)/d(mean open probability) is edge_scale[0]; this is one edge's share: 1 / (layers * rows * pairs).
  edge_weight: f32,
  saturation_weight: f32,
  saturation_bound: f32,
}

// g + noise, whose sign is the gate.
fn noisy_logit(g: f32, key: u32, i: u32, j: u32) -> f32 {
  if (NOISE) { return g + logistic_noise(random_word(key, i, j)); }
  return g;
}

fn sigmoid(x: f32) -> f32 {
  return 1.0 / (1.0 + exp(-x));
}

// d(sigmoid)/dx = p (1 - p). Not written as that: where p is near 1, 1 - p has lost its digits.
fn sigmoid_slope(x: f32) -> f32 {
  let e = exp(-abs(x));
  return e / ((1.0 + e) * (1.0 + e));
}

// d(edge objective)/dl for one edge: mean open probability plus the pull on saturated gates,
// E + weight * mean of relu(|g| - bound)^2.
fn edge_gradient(g: f32) -> f32 {
  let excess = max(abs(g) - gate.saturation_bound, 0.0);
  return sigmoid_slope(g) + gate.saturation_weight * 2.0 * excess * sign(g);
}

// d(y . dy)/dl for one edge, given its softmax weight s, dy . v and delta = dy . y; the gate counts as the relaxed
// sigmoid((g + noise) / temperature) in the backward pass (straight-through).
fn score_gradient(s: f32, open: f32, noisy: f32, dy_v: f32, delta: f32) -> f32 {
  var slope = open;
  if (GATED) {
    slope += sigmoid_slope(noisy * gate.inverse_temperature) * gate.inverse_temperature;
  }
  return s * (slope * dy_v - delta);
}
