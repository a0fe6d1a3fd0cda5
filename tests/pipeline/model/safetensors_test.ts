/**
 * The reader against files that the reference implementation wrote (tests/fixtures/safetensors), the writer against the
 * same bytes, and every way a header can be wrong.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import {
  type HeldTensor,
  openSafetensors,
  openSafetensorsFolder,
  type TensorType,
  type WritableTensor,
  writeSafetensors,
} from "../../../pipeline/model/safetensors.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const FIXTURES = new URL("../../fixtures/safetensors/", import.meta.url).pathname;
const expected: Record<TensorType | "source", string[]> = JSON.parse(
  await Deno.readTextFile(FIXTURES + "expected.json"),
);
const TYPES: TensorType[] = ["F32", "F16", "BF16"];

const bitsOf = (values: Float32Array) =>
  [...new Uint32Array(values.buffer)].map((word) => word.toString(16).padStart(8, "0"));
const fromBits = (bits: string[]) =>
  new Float32Array(Uint32Array.from(bits, (word) => parseInt(word, 16)).buffer);

function tensor(name: string, values: number[], type?: TensorType): WritableTensor {
  return { name, shape: [values.length], type, read: () => Promise.resolve(new Float32Array(values)) };
}

/** A file of these bytes: the header's length, the header, zeros. */
function fileOf(header: string, dataBytes: number, headerLength = new TextEncoder().encode(header).length) {
  const text = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerLength), true);
  bytes.set(text, 8);
  return bytes;
}

const namesIn = async (folder: string) =>
  (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);

for (const type of TYPES) {
  Deno.test(`a ${type} file of the reference implementation is read to the bit`, async () => {
    const file = await openSafetensors(`${FIXTURES}${type.toLowerCase()}.safetensors`);
    assertEquals(file.metadata, { format: "np" });
    assertEquals([...file.entries.keys()].sort(), ["empty", "scalar", "values"]);
    assertEquals(file.entries.get("values")!.shape, [3, 4]);
    assertEquals(file.entries.get("values")!.type, type);
    assertEquals(bitsOf(await file.read("values")), expected[type]);
    assertEquals(await file.read("scalar"), new Float32Array([-2.5]));
    assertEquals(file.entries.get("scalar")!.shape, []);
    assertEquals(await file.read("empty"), new Float32Array(0));
    assertEquals(file.entries.get("empty")!.shape, [0, 4]);
  });

  Deno.test(`${type} values are rounded to the bytes that the reference implementation has`, async () => {
    await using folder = await temporaryFolder();
    const source = fromBits(expected.source);
    const path = `${folder.path}/values.safetensors`;
    await writeSafetensors(path, [{
      name: "values",
      shape: [3, 4],
      type,
      read: () => Promise.resolve(source),
    }]);
    assertEquals(
      await dataOf(path, "values"),
      await dataOf(`${FIXTURES}${type.toLowerCase()}.safetensors`, "values"),
    );
  });
}

async function dataOf(path: string, name: string): Promise<Uint8Array> {
  const { begin, end } = (await openSafetensors(path)).entries.get(name)!;
  return (await Deno.readFile(path)).subarray(begin, end);
}

Deno.test("what was written is read back, of mixed types and with any name", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  const names = ["plain", "1", "__proto__", 'quote " and é', "{", "constructor"];
  await writeSafetensors(path, names.map((name, n) => tensor(name, [n, -n, 0.5], TYPES[n % 3])), {
    note: '{"a":1}',
  });
  const file = await openSafetensors(path);
  assertEquals(file.metadata, { note: '{"a":1}' });
  assertEquals([...file.entries.keys()].sort(), [...names].sort());
  for (const [n, name] of names.entries()) {
    assertEquals(await file.read(name), new Float32Array([n, -n, 0.5]));
  }
});

Deno.test("float32 keeps every bit, also of a NaN and of a view into a larger buffer", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  const bits = ["7fc12345", "ffffffff", "00000001"];
  const view = new Float32Array(fromBits(["3f800000", ...bits]).buffer, 4);
  await writeSafetensors(path, [{ name: "a", shape: [3], read: () => Promise.resolve(view) }]);
  assertEquals(bitsOf(await (await openSafetensors(path)).read("a")), bits);
});

Deno.test("a tensor whose values are there is written as one that is asked for them, and one with neither is refused", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  const values = Float32Array.of(1, -2, 0.1, 4);
  const held: HeldTensor[] = [
    { name: "a", shape: [2, 2], values },
    { name: "b", shape: [4], type: "F16", values },
    { name: "c", shape: [2], values: Int32Array.of(-1, 7) },
  ];
  await writeSafetensors(path, held);
  const { entries } = await openSafetensors(path);
  const types = Array.from(entries.values(), ({ name, type, shape }) => [name, type, shape]);
  assertEquals(types, [["a", "F32", [2, 2]], ["b", "F16", [4]], ["c", "I32", [2]]]);
  const bytes = await Deno.readFile(path);
  const read = () => Promise.resolve(values);
  const integers = () => Promise.resolve(Int32Array.of(-1, 7));
  await writeSafetensors(path, [
    { name: "a", shape: [2, 2], read },
    { name: "b", shape: [4], type: "F16", read },
    { name: "c", shape: [2], type: "I32", read: integers },
  ]);
  assertEquals(await Deno.readFile(path), bytes);

  const refused = (tensor: object, error: typeof TypeError | typeof RangeError, message: string) =>
    assertRejects(() => writeSafetensors(path, [{ ...held[0], ...tensor } as HeldTensor]), error, message);
  await refused(
    { values: undefined },
    TypeError,
    "Cannot write tensor a as it needs `values`, a Float32Array,",
  );
  await refused({ values: [1, 2, 3, 4] }, TypeError, "tensor a as it needs");
  await refused({ type: "I32" }, TypeError, "tensor a as it needs");
  await refused({ type: "F16", values: new Int32Array(4) }, TypeError, "tensor a as it needs");
  await refused({ shape: [3] }, RangeError, "shape has 3 elements: 4");
  assertEquals(await Deno.readFile(path), bytes, "the file is as it was");
});

Deno.test("a NaN stays one in the short types", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  // Rounded as if they were numbers, these would become minus zero, zero and infinity in BF16.
  const values = fromBits(["7fffffff", "ffffffff", "7f800001"]);
  for (const type of ["F16", "BF16"] as const) {
    await writeSafetensors(path, [{ name: "a", shape: [3], type, read: () => Promise.resolve(values) }]);
    assertEquals([...await (await openSafetensors(path)).read("a")], [NaN, NaN, NaN]);
  }
});

Deno.test("a value that a short type cannot hold is refused and nothing is left behind", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  const refusal = async (type: TensorType, value: number) =>
    (await assertRejects(() => writeSafetensors(path, [tensor("w", [1, value], type)]), UserError)).message;
  assertEquals(
    await refusal("F16", -65520),
    "Cannot save tensor w as F16, which ends at 65504: element 1 is -65520",
  );
  assertEquals(
    await refusal("BF16", 3.4e38),
    "Cannot save tensor w as BF16, which ends at 3.39e38: element 1 is 3.3999999521443642e+38",
  );
  assertEquals(await namesIn(folder.path), []);
});

Deno.test("values of the next tensors are asked for ahead, by 32 MiB at most, and come in their order", async () => {
  await using folder = await temporaryFolder();
  const [count, length] = [24, 1 << 20];
  let asked = 0;
  let most = 0;
  const answers: (() => void)[] = [];
  const tensors = Array.from({ length: count }, (_, n): WritableTensor => ({
    name: `t${n}`,
    shape: [length],
    read() {
      asked++;
      return new Promise((resolve) => {
        answers.push(() => {
          most = Math.max(most, asked);
          asked--;
          resolve(new Float32Array(length).fill(n));
        });
        // The last of those that are asked for is the first to come.
        setTimeout(() => answers.splice(0).reverse().forEach((answer) => answer()), 1);
      });
    },
  }));
  const path = `${folder.path}/a.safetensors`;
  await writeSafetensors(path, tensors);
  assertEquals(most, 8);
  const file = await openSafetensors(path);
  for (let n = 0; n < count; n++) {
    const values = await file.read(`t${n}`);
    assertEquals([values.length, values[0], values[length - 1]], [length, n, n]);
  }
  const failing = (n: number): WritableTensor => ({
    ...tensor(`f${n}`, [n]),
    read: () => Promise.reject(new Error(`lost ${n}`)),
  });
  await assertRejects(
    () => writeSafetensors(path, [tensor("a", [1]), failing(1), failing(2)]),
    Error,
    "lost 1",
  );
});

Deno.test("writing that is broken off leaves the older file and no other", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  await writeSafetensors(path, [tensor("a", [1])]);
  const killed = { name: "b", shape: [1], read: () => Promise.reject(new Error("killed")) };
  await assertRejects(() => writeSafetensors(path, [tensor("a", [2]), killed]), Error, "killed");
  assertEquals(await namesIn(folder.path), ["a.safetensors"]);
  assertEquals(await (await openSafetensors(path)).read("a"), new Float32Array([1]));
});

Deno.test("two tensors of one name, a tensor called __metadata__ and a wrong count are refused", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  const refused = (tensors: WritableTensor[], message: string) =>
    assertRejects(() => writeSafetensors(path, tensors), RangeError, message);
  await refused([tensor("a", [1]), tensor("a", [2])], "the name a is taken");
  await refused([tensor("__metadata__", [1])], "the name __metadata__ is taken");
  await refused(
    [{ ...tensor("a", [1, 2]), shape: [3] }],
    "Cannot write tensor a as its shape has 3 elements: 2",
  );
  assertEquals(await namesIn(folder.path), []);
});

const A = `"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`;

/** What stands in the file, and what the error says after the file's path. */
const HOSTILE: [what: string, bytes: Uint8Array, message: string][] = [
  ["is empty", new Uint8Array(0), "as a safetensors file has at least 8 bytes: 0"],
  ["ends in the length", new Uint8Array(7), "as a safetensors file has at least 8 bytes: 7"],
  ["has an empty header", new Uint8Array(8), "as it is no JSON"],
  [
    "has a header longer than itself",
    fileOf("{}", 0, 3),
    "as its header cannot be 3 bytes long in a file of 10",
  ],
  [
    "has a header of 2^63 bytes",
    fileOf("{}", 0, 2 ** 63),
    "as its header cannot be 9223372036854776000 bytes long in a file of 10",
  ],
  [
    "has a header that is no UTF-8",
    fileOf(`{"__metadata__":{"a":"?"}}`, 0).map((byte) => byte === 0x3f ? 0xff : byte),
    "as its header is no UTF-8",
  ],
  ["has a header that is no JSON", fileOf("{a}", 0), "as it is no JSON (line 1 column 2)"],
  ["has an array for a header", fileOf("[]", 0), "as its header is no JSON object"],
  ["has null for a header", fileOf("null", 0), "as its header is no JSON object"],
  ["has a tensor twice", fileOf(`{${A},${A}}`, 4), 'as it has the name "a" twice'],
  [
    "has a tensor twice, once escaped",
    fileOf(`{${A},${A.replace('"a"', '"\\u0061" ')}}`, 4),
    'as it has the name "a" twice',
  ],
  [
    "has a type twice",
    fileOf(`{"a":{"dtype":"F16","dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4),
    'as it has the name "dtype" twice',
  ],
  [
    "has a tensor that is no object",
    fileOf(`{"a":null}`, 0),
    "as tensor a must be of type F32, F16, BF16: undefined",
  ],
  [
    "has an unknown type",
    fileOf(`{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}`, 8),
    `as tensor a must be of type F32, F16, BF16: "C64"`,
  ],
  [
    "has a type that every object has",
    fileOf(`{"a":{"dtype":"toString","shape":[1],"data_offsets":[0,4]}}`, 4),
    `as tensor a must be of type F32, F16, BF16: "toString"`,
  ],
  [
    "has a negative axis",
    fileOf(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 4),
    "as tensor a has no valid shape: [-1]",
  ],
  [
    "has a fractional axis",
    fileOf(`{"a":{"dtype":"F32","shape":[0.5],"data_offsets":[0,2]}}`, 2),
    "as tensor a has no valid shape: [0.5]",
  ],
  [
    "has no offsets",
    fileOf(`{"a":{"dtype":"F32","shape":[1]}}`, 4),
    "as tensor a has no valid data_offsets: undefined",
  ],
  [
    "has offsets in the wrong order",
    fileOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 4),
    "as tensor a has no valid data_offsets: [4,0]",
  ],
  [
    "has an offset beyond the integers",
    fileOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e300]}}`, 4),
    "as tensor a has no valid data_offsets: [0,1e+300]",
  ],
  [
    "ends in a tensor",
    fileOf(`{${A}}`, 3),
    "as tensor a ends at byte 66 of a file of 65: the file is cut short",
  ],
  [
    "has fewer bytes than a shape needs",
    fileOf(`{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,4]}}`, 4),
    "as tensor a of shape [2, 3] needs 24 bytes: 4",
  ],
  [
    "has a shape whose product overflows",
    fileOf(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0),
    "as tensor a of shape [4294967296, 4294967296] needs 73786976294838210000 bytes: 0",
  ],
  [
    "has tensors that overlap",
    fileOf(`{${A},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}`, 6),
    "as tensor b overlaps the one before it",
  ],
  [
    "has tensors that are the same bytes",
    fileOf(`{${A},${A.replace('"a"', '"b"')}}`, 4),
    "as tensor b overlaps the one before it",
  ],
  [
    "has a gap",
    fileOf(`{${A},"b":{"dtype":"F32","shape":[1],"data_offsets":[6,10]}}`, 10),
    "as 2 bytes before tensor b belong to none",
  ],
  ["has bytes behind the last tensor", fileOf(`{${A}}`, 5), "as its tensors end at byte 66 of 67"],
  [
    "has metadata that is no object",
    fileOf(`{"__metadata__":[]}`, 0),
    "as its __metadata__ must be an object of strings",
  ],
  [
    "has metadata that is no text",
    fileOf(`{"__metadata__":{"a":1}}`, 0),
    "as its __metadata__ must be an object of strings",
  ],
];

for (const [what, bytes, message] of HOSTILE) {
  Deno.test(`a file that ${what} is refused before anything is read`, async () => {
    await using folder = await temporaryFolder();
    const path = `${folder.path}/a.safetensors`;
    await Deno.writeFile(path, bytes);
    const error = await assertRejects(() => openSafetensors(path), UserError);
    assertEquals(error.exitCode, 3);
    const said = error.message.replace("Cannot read", "Cannot load");
    assertEquals(said, `Cannot load ${path} ${message}`);
  });
}

Deno.test("a header of more than 100 MB is refused", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  await Deno.writeFile(path, fileOf("{}", 0, 100_000_001));
  // Sparse: the file says it is long and takes no room.
  await Deno.truncate(path, 100_000_009);
  await assertRejects(
    () => openSafetensors(path),
    UserError,
    "as its header cannot be 100000001 bytes long in a file of 100000009",
  );
});

Deno.test("a missing file, a folder, a missing tensor and a file cut short since are named", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  await assertRejects(() => openSafetensors(path), UserError, `Cannot read ${path}: no such file`);
  await assertRejects(
    () => openSafetensors(folder.path),
    UserError,
    `Cannot read ${folder.path} as it must be a file: it is a folder`,
  );
  await writeSafetensors(path, [tensor("a", [1, 2])]);
  const file = await openSafetensors(path);
  await assertRejects(() => file.read("b"), UserError, `Cannot read ${path} as it has no tensor b`);
  await Deno.truncate(path, file.entries.get("a")!.end - 1);
  await assertRejects(
    () => file.read("a"),
    UserError,
    `Cannot read tensor a of ${path} as the file has been cut short`,
  );
  await Deno.remove(path);
  await assertRejects(() => file.read("a"), UserError, `Cannot read ${path}: no such file`);
});

Deno.test("the shards of the reference implementation are read as one", async () => {
  const model = await openSafetensorsFolder(FIXTURES + "sharded");
  assertEquals([...model.entries.keys()].sort(), ["first", "second"]);
  assertEquals(model.files.length, 2);
  assertEquals(await model.read("first"), new Float32Array([1, 2, 3]));
  assertEquals(await model.read("second"), new Float32Array([2, 3, 4]));
});

/** An index's text, and the error, where FOLDER stands for the folder; x.safetensors there holds tensor a. */
const HOSTILE_INDEX: [what: string, index: string, message: string][] = [
  ["is null", "null", "Cannot load FOLDER/model.safetensors.index.json as it has no weight_map"],
  ["has no weight_map", "{}", "Cannot load FOLDER/model.safetensors.index.json as it has no weight_map"],
  [
    "names a tensor twice",
    `{"weight_map":{"a":"x.safetensors","a":"x.safetensors"}}`,
    'Cannot load FOLDER/model.safetensors.index.json as it has the name "a" twice',
  ],
  [
    "names a shard that is no text",
    `{"weight_map":{"a":1}}`,
    "Cannot load FOLDER/model.safetensors.index.json as the shard of tensor a must be a file name: 1",
  ],
  [
    "leads out of the folder",
    `{"weight_map":{"a":"../x.safetensors"}}`,
    `Cannot load FOLDER/model.safetensors.index.json as the shard of tensor a must be a file name: "../x.safetensors"`,
  ],
  [
    "names the folder above",
    `{"weight_map":{"a":".."}}`,
    "Cannot read PARENT as it must be a file: it is a folder",
  ],
  [
    "names a shard that is not there",
    `{"weight_map":{"a":"y.safetensors"}}`,
    "Cannot load FOLDER/model.safetensors.index.json as its shard y.safetensors is not there",
  ],
  [
    "leaves out a tensor",
    `{"weight_map":{"b":"x.safetensors"}}`,
    "Cannot load FOLDER/x.safetensors as the index has tensor a in no shard",
  ],
  [
    "names a tensor that is not there",
    `{"weight_map":{"a":"x.safetensors","b":"x.safetensors"}}`,
    "Cannot load FOLDER/x.safetensors as its tensor b is missing",
  ],
];

for (const [what, index, message] of HOSTILE_INDEX) {
  Deno.test(`an index that ${what} is refused`, async () => {
    await using parent = await temporaryFolder();
    const folder = `${parent.path}/model`;
    await Deno.mkdir(folder);
    await writeSafetensors(`${folder}/x.safetensors`, [tensor("a", [1])]);
    await Deno.writeTextFile(`${folder}/model.safetensors.index.json`, index);
    const error = await assertRejects(() => openSafetensorsFolder(folder), UserError);
    assertEquals(error.message, message.replace("FOLDER", folder).replace("PARENT", parent.path));
  });
}

Deno.test("a bit flipped anywhere in a file that we wrote is noticed before a value is used", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  await writeSafetensors(path, [tensor("a", [1, 2, 3]), tensor("b", [4], "F16")], { step: "7" });
  const whole = await openSafetensors(path);
  assertEquals([whole.checked, whole.metadata], [true, { step: "7" }]);
  await whole.verify();
  const bytes = await Deno.readFile(path);
  for (let at = 0; at < bytes.length; at++) {
    const flipped = bytes.slice();
    flipped[at] ^= 1 << at % 8;
    await Deno.writeFile(path, flipped);
    const noticed = await (async () => {
      const file = await openSafetensors(path);
      await file.verify();
      return "nothing was wrong";
    })().catch((error) => error instanceof UserError ? "noticed" : String(error));
    assertEquals(noticed, "noticed", `byte ${at} of ${bytes.length}`);
    const read = async () => (await openSafetensors(path)).read("a");
    const { begin, end } = whole.entries.get("a")!;
    if (at < begin || (at >= begin && at < end)) await assertRejects(read, UserError, path);
  }
});

Deno.test("a folder without weights is refused", async () => {
  await using folder = await temporaryFolder();
  await assertRejects(
    () => openSafetensorsFolder(folder.path),
    UserError,
    `Cannot load ${folder.path} as it needs model.safetensors or model.safetensors.index.json: neither is there`,
  );
});
