// x[p] = token_embedding[token[p]], with POSITIONS + position_embedding[start + p mod T], for the tokens whose embedding lies in
// this slice of the vocabulary.
//
// tokens (position in the batch); token_embedding (COUNT rows from START on, ELEMENTS); position_embedding (>= start + T, ELEMENTS)
@group(0) @binding(0) var<storage, read> tokens: array<u32>;
@group(0) @binding(1) var<storage, read> token_embedding: array<ELEMENT>;
$if POSITIONS {
struct Place { start: u32 }
@group(0) @binding(2) var<storage, read> position_embedding: array<ELEMENT>;
@group(0) @binding(4) var<uniform> place: Place;
$}
@group(0) @binding(3) var<storage, read_write> x: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var at = id.x; at < ROWS * ELEMENTS; at += groups.x * 64u) {
    let position = at / ELEMENTS;
    let n = at % ELEMENTS;
    let row = tokens[position] - START;
    if (row >= COUNT) { continue; }
    var value = token_embedding[row * ELEMENTS + n];
    $if POSITIONS {
    value += position_embedding[(place.start + position % T) * ELEMENTS + n];
    $}
    x[at] = value;
  }
}
