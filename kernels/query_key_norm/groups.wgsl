// A row's columns by what is normed together: QUERIES groups of QUERY_WIDTH elements, KEYS groups of KEY_WIDTH, and, as
// group GROUPS, the VALUES elements that no norm touches.
const GROUPS = QUERIES + KEYS;
const COLUMNS = QUERIES * QUERY_WIDTH + KEYS * KEY_WIDTH + VALUES;

// First element of a group in its row.
fn first_of(of_row: u32) -> u32 {
  if (of_row < QUERIES) { return of_row * QUERY_WIDTH; }
  return QUERIES * QUERY_WIDTH + (of_row - QUERIES) * KEY_WIDTH;
}

fn width_of(of_row: u32) -> u32 {
  return select(KEY_WIDTH, QUERY_WIDTH, of_row < QUERIES);
}
