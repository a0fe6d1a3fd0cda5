// The weight of element n of a group: one for all groups of queries, one for all of keys.
@group(0) @binding(1) var<storage, read> query_weight: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> key_weight: array<ELEMENT>;

fn weight_of(of_row: u32, n: u32) -> ELEMENT {
  if (of_row < QUERIES) { return query_weight[n]; }
  return key_weight[n];
}
