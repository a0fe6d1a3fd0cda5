// Puts the keys and values of new positions behind those of the positions before.
//
// qkv           (batch, new position, H + 2 K, D), as heads.wgsl has it
// keys, values  (position, batch, key head, D)
@group(0) @binding(0) var<uniform> cache: Cache;
@group(0) @binding(1) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> keys: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> values: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var n = id.x; n < BATCH * cache.count * KEY_HEADS * CHUNKS; n += groups.x * 64u) {
    let chunk = n % CHUNKS;
    let key_head = (n / CHUNKS) % KEY_HEADS;
    let row = n / (CHUNKS * KEY_HEADS);
    let to = cache_at(cache.filled + row % cache.count, row / cache.count, key_head) + chunk;
    keys[to] = qkv[key_at(row, key_head) + chunk];
    values[to] = qkv[value_at(row, key_head) + chunk];
  }
}
