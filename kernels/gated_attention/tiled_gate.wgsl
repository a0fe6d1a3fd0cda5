// gate.wgsl's edge for the tiled kernels. What follows has no branches, so that a GPU works on many edges at a time, where
// one alone would wait for each of its steps; and it divides once where gate.wgsl does four times.

// (1 - p) / p of an edge with noise as a fraction: numerator and denominator, in units of 2^-25 of inverse_noise_odds'.
fn noisy_fraction(odds: f32, row: u32, key: u32, j: u32) -> vec2f {
  if (!NOISE) { return vec2f(odds, 1.0); }
  let odd = 2u * (random_word(row, key, j) >> 8u) + 1u;
  return vec2f(odds * (f32(0x2000000u - odd) * 0x1p-25f), f32(odd) * 0x1p-25f);
}

// Whether g + noise > 0.
fn is_open_in_tile(g: f32, noisy: vec2f) -> bool {
  if (NOISE) { return noisy.x < noisy.y; }
  return g > 0.0;
}

// gate.wgsl's edge_backward. `unit` says that the temperature is 1.
fn tiled_edge_backward(
  l: f32,
  s: f32,
  dy_v: f32,
  delta_i: f32,
  edge: f32,
  row: u32,
  key: u32,
  i: u32,
  j: u32,
  unit: bool,
) -> EdgeBackward {
  if (!GATED) { return EdgeBackward(s * (dy_v - delta_i), s); }
  let g = l + gate.bias;
  let odds = closed_odds(g);
  let noisy = noisy_fraction(odds, row, key, j);
  let open = select(0.0, 1.0, is_open_in_tile(g, noisy));
  // Neither factor is above 2.4e17.
  let sum = noisy.x + noisy.y;
  let inverse = 1.0 / (sum * (1.0 + odds));
  let p = sum * inverse;
  var slope = open;
  if (NOISE) {
    // What noisy.y is multiplied by for p with noise.
    let of_sum = (1.0 + odds) * inverse;
    let temperature = gate.inverse_temperature;
    let other = probability_slope(closed_odds(log(noisy.y / noisy.x) * temperature)) * temperature;
    slope += select(other, noisy.x * of_sum * noisy.y * of_sum, unit);
  }
  let bound = gate.saturation_bound;
  let pull = gate.saturation_weight * 2.0 * (g - clamp(g, -bound, bound));
  var of_mean = odds * p * p;
  $if WEIGHTED {
  of_mean *= distance_weight(i, j);
  $}
  return EdgeBackward(s * (slope * dy_v - delta_i) + edge * (of_mean + pull), open * s);
}

// Whether the temperature is 1, or does not matter. Asked once for all edges of a tile, of which there are then two kinds,
// and of neither is more computed than it needs; a CPU driver, which compiles both for long, asks for each edge.
fn is_unit() -> bool { return !NOISE || gate.inverse_temperature == 1.0; }
