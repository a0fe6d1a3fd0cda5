// What the kernels with a cache share: keys and values of earlier positions, (position, batch, key head, D) each, of which
// the first `filled` stand there before the `count` new positions of every row of the batch.
struct Cache { filled: u32, count: u32, bias: f32 }

fn cache_at(position: u32, b: u32, key_head: u32) -> u32 {
  return ((position * BATCH + b) * KEY_HEADS + key_head) * CHUNKS;
}
