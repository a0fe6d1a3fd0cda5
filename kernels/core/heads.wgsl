// Where heads stand in rows that hold them side by side: every kernel that reads or writes them asks here.
//
// A row of qkv is HEADS query heads, KEY_HEADS key heads and KEY_HEADS value heads, in this order; a row of y is HEADS
// heads. A head is CHUNKS elements. Query head h reads key and value head h / QUERIES_PER_KEY, with QUERIES_PER_KEY = HEADS / KEY_HEADS.
fn key_head_of(head: u32) -> u32 { return head / QUERIES_PER_KEY; }

fn query_at(row: u32, head: u32) -> u32 { return (row * (HEADS + 2u * KEY_HEADS) + head) * CHUNKS; }

fn key_at(row: u32, key_head: u32) -> u32 { return query_at(row, HEADS + key_head); }

fn value_at(row: u32, key_head: u32) -> u32 { return query_at(row, HEADS + KEY_HEADS + key_head); }

fn result_at(row: u32, head: u32) -> u32 { return (row * HEADS + head) * CHUNKS; }
