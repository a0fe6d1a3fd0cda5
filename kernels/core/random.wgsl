// Counter-based random numbers, keyed by element: the same (seed, step, layer, row, i, j) gives the same number in
// every kernel, every tiling and every run, so noise is replayed rather than stored. The mixer is murmur3's 32-bit
// finaliser (Appleby, public domain).
fn mix(word: u32) -> u32 {
  var h = word;
  h ^= h >> 16u;
  h *= 0x85ebca6bu;
  h ^= h >> 13u;
  h *= 0xc2b2ae35u;
  h ^= h >> 16u;
  return h;
}

fn stream_key(seed: u32, step: u32, layer: u32, row: u32) -> u32 {
  var k = mix(seed + 0x9e3779b9u);
  k = mix((k ^ step) + 0x9e3779b9u);
  k = mix((k ^ layer) + 0x9e3779b9u);
  return mix((k ^ row) + 0x9e3779b9u);
}

// The part of an edge's word that its query decides, and the word.
fn random_row(key: u32, i: u32) -> u32 {
  return mix(key + i * 0x9e3779b1u);
}

fn random_word(row: u32, key: u32, j: u32) -> u32 {
  return mix(mix(row ^ (j * 0x85ebca77u)) + key);
}

// e^-noise for logistic noise ln u - ln(1 - u) with u = (n + 1/2) / 2^24, n the word's upper 24 bits: (1 - u) / u, the
// complement to 2^25 of the odd integer 2n + 1 over that integer, neither of which is ever 0. No logarithm is needed.
fn inverse_noise_odds(word: u32) -> f32 {
  let odd = 2u * (word >> 8u) + 1u;
  return f32(0x2000000u - odd) / f32(odd);
}
