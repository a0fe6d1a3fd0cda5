// What the kernels with a cache share: keys and values of earlier positions, (batch, key head, CAPACITY, D) each, of which
// the first `filled` stand there before the `count` new positions of every row of the batch.
struct Cache { filled: u32, count: u32, bias: f32 }

fn cache_at(b: u32, key_head: u32, position: u32) -> u32 {
  return ((b * KEY_HEADS + key_head) * CAPACITY + position) * CHUNKS;
}
