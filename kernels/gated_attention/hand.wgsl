// How the lanes of a workgroup get a row of keys, values, queries or gradients that all of them need. On a CPU driver
// a workgroup is one vector: of each run of HANDS chunks, lane n loads chunk n, and hands it to the others by a
// subgroup operation, which costs less than a load (docs/log.md). Elsewhere HANDS is 1, each lane loads the
// whole row, and the subgroup operations are these.
$if LOADED {
fn subgroupBroadcast(value: ELEMENT, lane: u32) -> ELEMENT { return value; }
fn subgroupAny(condition: bool) -> bool { return condition; }
$}

// Which chunk of a row a lane loads in a run.
fn part(run: u32, lane: u32) -> u32 { return min(HANDS * run + lane % HANDS, CHUNKS - 1u); }
