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

// (1 - p) / p = e^-g for p = sigmoid(g): one exponential, of which p, its slope and the gate with noise are rational
// functions. Bounded, so that no product of it overflows.
fn closed_odds(g: f32) -> f32 {
  return exp(-clamp(g, -40.0, 40.0));
}

// The same for g + noise, the noise of the edge to key j being that of its query's `row`.
fn noisy_odds(odds: f32, row: u32, key: u32, j: u32) -> f32 {
  if (NOISE) { return odds * inverse_noise_odds(random_word(row, key, j)); }
  return odds;
}

// Whether g + noise > 0.
fn is_open(g: f32, noisy: f32) -> bool {
  if (NOISE) { return noisy < 1.0; }
  return g > 0.0;
}

fn open_probability(odds: f32) -> f32 {
  return 1.0 / (1.0 + odds);
}

// dp/dg = p (1 - p). Not written as that: where p is near 1, 1 - p has lost its digits.
fn probability_slope(odds: f32) -> f32 {
  let p = open_probability(odds);
  return odds * p * p;
}

// d/dl of the gate as the backward pass has it: sigmoid((g + noise) / temperature) (straight-through).
fn relaxed_slope(noisy: f32) -> f32 {
  if (gate.inverse_temperature == 1.0) { return probability_slope(noisy); }
  return probability_slope(closed_odds(-log(noisy) * gate.inverse_temperature)) * gate.inverse_temperature;
}

$if WEIGHTED {
// What the open probability of edge (i, j) weighs in its mean: w (1 + i - j)^-power, w such that
// the edges of a whole row of the batch weigh 1 in the mean. Behind the query, where nothing counts, as at it.
fn distance_weight(i: u32, j: u32) -> f32 {
  return DISTANCE_WEIGHT * pow(f32(max(i, j) - j + 1u), -DISTANCE_POWER);
}
$}

// d(edge objective)/dl for edge (i, j): mean open probability plus the pull on saturated gates,
// E + weight * mean of relu(|g| - bound)^2.
fn edge_gradient(g: f32, odds: f32, i: u32, j: u32) -> f32 {
  let excess = max(abs(g) - gate.saturation_bound, 0.0);
  var of_mean = probability_slope(odds);
  $if WEIGHTED {
  of_mean *= distance_weight(i, j);
  $}
  return of_mean + gate.saturation_weight * 2.0 * excess * sign(g);
}

struct EdgeBackward {
  // d(objective)/dl
  dl: f32,
  // m s, what v was multiplied by
  weight: f32,
}

// Edge (i, j) backward: l and s its scaled score and softmax weight, dy . v, delta = dy . y, and the edge objective's share.
fn edge_backward(
  l: f32,
  s: f32,
  dy_v: f32,
  delta_i: f32,
  edge: f32,
  row: u32,
  key: u32,
  i: u32,
  j: u32,
) -> EdgeBackward {
  if (!GATED) { return EdgeBackward(s * (dy_v - delta_i), s); }
  let g = l + gate.bias;
  let odds = closed_odds(g);
  let noisy = noisy_odds(odds, row, key, j);
  let open = select(0.0, 1.0, is_open(g, noisy));
  // Straight-through while gates are sampled; without noise they are constants.
  var slope = open;
  if (NOISE) { slope += relaxed_slope(noisy); }
  let dl = s * (slope * dy_v - delta_i) + edge * edge_gradient(g, odds, i, j);
  return EdgeBackward(dl, open * s);
}
