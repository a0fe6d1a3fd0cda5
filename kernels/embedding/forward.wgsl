// x[p] = token_embedding[token[p]] + position_embedding[p mod T], for the tokens whose embedding lies in this slice of
// the vocabulary.
//
// tokens (position in the batch); token_embedding (COUNT rows from START on, N); position_embedding (>= T, N)
@group(0) @binding(0) var<storage, read> tokens: array<u32>;
@group(0) @binding(1) var<storage, read> token_embedding: array<f32>;
@group(0) @binding(2) var<storage, read> position_embedding: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var at = id.x; at < ROWS * N; at += groups.x * 64u) {
    let position = at / N;
    let n = at % N;
    let row = tokens[position] - START;
    if (row < COUNT) { x[at] = token_embedding[row * N + n] + position_embedding[(position % T) * N + n]; }
  }
}
