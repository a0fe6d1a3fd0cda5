/**
 * The safetensors format: an eight-byte length, a JSON header with each tensor's type, shape and byte range, then the
 * bytes. Everything a header can get wrong is found before any tensor is read.
 *
 * The format has no checksums. Files that we write carry them in the header's metadata: `sha256 <tensor>` of each
 * tensor's bytes, and `sha256` of the header itself with zeros in that place. They are asked for wherever they stand.
 *
 * Source: https://github.com/huggingface/safetensors (format)
 *
 * @module
 */
import { elementsOf } from "../../kernels/core/tensor.ts";
import { join } from "node:path";
import { inputError } from "../errors.ts";
import {
  digestOf,
  exists,
  isObject,
  openRegular,
  parseJson,
  readAt,
  readText,
  sha256,
  shown,
  writeAll,
  writeAtomically,
} from "../files.ts";

/** Element types that are read and written. */
export type TensorType = "F32" | "F16" | "BF16";

const BYTES: Record<TensorType, number> = { F32: 4, F16: 2, BF16: 2 };
/** Bytes of an element, by type, of what is written. */
const WRITTEN_BYTES = { ...BYTES, I32: 4 };
/** Element types of the format that are passed over: buffers of a model may have them. */
const OTHER_BYTES: Record<string, number> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  U16: 2,
  I16: 2,
  U32: 4,
  I32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
};
const MAX_HEADER_BYTES = 100_000_000;
/** What is hashed at once. */
const PIECE_BYTES = 16 << 20;
/**
 * Values that may be on their way while earlier ones are written. Whoever waits for a device's is told after 10 ms at the
 * earliest, however few they are: of 720 tensors that are asked for one by one that is 8 seconds.
 */
const AHEAD_BYTES = 32 << 20;
/** Name of the header's digest among the metadata; a tensor's has its name behind a space. */
const DIGEST = "sha256";
/** Stands for a digest that is not known yet; it has as many digits. */
const NO_DIGEST = "0".repeat(64);

/** Where one tensor stands. */
export interface TensorEntry {
  /** As stored. */
  name: string;
  /** A {@link TensorType}, or another of the format, whose values cannot be read. */
  type: string;
  /** Sizes of the axes. */
  shape: number[];
  /** Path of the file that holds it. */
  file: string;
  /** First byte in the file, and one past the last. */
  begin: number;
  /** Byte behind its last. */
  end: number;
  /** SHA-256 of its bytes, where the file says it. */
  digest?: string;
}

/** An open set of tensors. */
export interface Safetensors {
  /** What error messages call it: a file or a folder. */
  readonly path: string;
  /** The files it is made of. */
  readonly files: readonly string[];
  /** By name. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** Without the checksums. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Whether header and tensors have checksums. */
  readonly checked: boolean;
  /**
   * One tensor's values as float32.
   *
   * @throws {UserError} when there is no such tensor, it is of another type, its bytes are not those that its checksum was made of, the file has
   * been cut short since it was opened, or memory does not hold it
   */
  read(name: string): Promise<Float32Array>;
  /**
   * Compares every tensor that has a checksum with it, a piece in memory at a time.
   *
   * @throws {UserError} naming the first tensor that is damaged
   */
  verify(): Promise<void>;
}

/**
 * Opens one file and checks its header.
 *
 * @throws {UserError} naming the file, and the tensor where one is at fault
 */
export async function openSafetensors(path: string): Promise<Safetensors> {
  const { entries, metadata, checked } = await readHeader(path);
  return opened(path, [path], entries, { metadata, checked });
}

/**
 * Opens a folder's `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
 *
 * @throws {UserError} naming the file, and the tensor where one is at fault
 */
export async function openSafetensorsFolder(folder: string): Promise<Safetensors> {
  const single = join(folder, "model.safetensors");
  const indexPath = join(folder, "model.safetensors.index.json");
  if (await exists(single)) return await openSafetensors(single);
  if (!await exists(indexPath)) {
    throw inputError(
      `Cannot load ${folder} as it needs model.safetensors or model.safetensors.index.json: neither is there`,
    );
  }
  const index = parseUnique(await readText(indexPath, MAX_HEADER_BYTES), indexPath);
  if (!isObject(index) || !isObject(index.weight_map)) {
    throw inputError(`Cannot load ${indexPath} as it has no weight_map`);
  }
  const shardOf = new Map(
    Object.entries(index.weight_map).map(([name, shard]) => {
      if (typeof shard !== "string" || !/^[\w.-]+$/.test(shard)) {
        throw inputError(
          `Cannot load ${indexPath} as the shard of tensor ${name} must be a file name: ${shown(shard)}`,
        );
      }
      return [name, shard];
    }),
  );
  const entries = new Map<string, TensorEntry>();
  const files: string[] = [];
  let checked = true;
  for (const shard of new Set(shardOf.values())) {
    const path = join(folder, shard);
    if (!await exists(path)) throw inputError(`Cannot load ${indexPath} as its shard ${shard} is not there`);
    files.push(path);
    const header = await readHeader(path);
    checked &&= header.checked;
    for (const [name, entry] of header.entries) {
      const listed = shardOf.get(name);
      if (listed !== shard) {
        throw inputError(`Cannot load ${path} as the index has tensor ${name} in ${listed ?? "no shard"}`);
      }
      entries.set(name, entry);
    }
  }
  for (const [name, shard] of shardOf) {
    if (!entries.has(name)) {
      throw inputError(`Cannot load ${join(folder, shard)} as its tensor ${name} is missing`);
    }
  }
  return opened(folder, files, entries, { metadata: {}, checked });
}

function opened(
  path: string,
  files: string[],
  entries: Map<string, TensorEntry>,
  { metadata, checked }: Pick<Safetensors, "metadata" | "checked">,
): Safetensors {
  return {
    path,
    files,
    entries,
    metadata,
    checked,
    async read(name) {
      const entry = entries.get(name);
      if (!entry) throw inputError(`Cannot read ${path} as it has no tensor ${name}`);
      const { type } = entry;
      if (!isReadable(type)) {
        throw inputError(
          `Cannot load ${entry.file} as tensor ${name} must be of type ${
            Object.keys(BYTES).join(", ")
          }: "${type}"`,
        );
      }
      using file = (await openRegular(entry.file)).file;
      const length = entry.end - entry.begin;
      const bytes = await readAt(file, entry.begin, length).catch((error) => {
        if (!(error instanceof RangeError)) throw error;
        throw inputError(
          `Cannot read tensor ${name} of ${entry.file} as memory does not hold its ${length} bytes`,
        );
      });
      if (!bytes) throw cutShort(entry);
      if (entry.digest !== undefined && digestOf(bytes) !== entry.digest) throw damaged(entry);
      return decode(bytes, type);
    },
    async verify() {
      for (const entry of entries.values()) {
        if (entry.digest === undefined) continue;
        using file = (await openRegular(entry.file)).file;
        const hash = sha256();
        for (let at = entry.begin; at < entry.end; at += PIECE_BYTES) {
          const piece = await readAt(file, at, Math.min(PIECE_BYTES, entry.end - at));
          if (!piece) throw cutShort(entry);
          hash.update(piece);
        }
        if (hash.digest("hex") !== entry.digest) throw damaged(entry);
      }
    },
  };
}

function cutShort({ name, file }: TensorEntry): Error {
  return inputError(`Cannot read tensor ${name} of ${file} as the file has been cut short`);
}

function damaged({ name, file }: TensorEntry): Error {
  return inputError(`Cannot use ${file} as tensor ${name} is damaged: its bytes have another SHA-256`);
}

/** A header's text, decoded strictly: a mark of byte order would be no JSON. */
function headerText(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw inputError(`Cannot load ${path} as its header is no UTF-8`);
  }
}

/** Parses JSON in which no object has a name twice. */
function parseUnique(text: string, path: string): unknown {
  const value = parseJson(text, path);
  const name = repeatedName(text);
  if (name !== undefined) throw inputError(`Cannot load ${path} as it has the name ${shown(name)} twice`);
  return value;
}

/** The first name that an object in valid JSON has twice; JSON.parse keeps the last of them and says nothing. */
function repeatedName(json: string): string | undefined {
  const colon = /\s*:/y;
  const objects: Set<string>[] = [];
  for (let at = 0; at < json.length; at++) {
    if (json[at] === "{") objects.push(new Set());
    else if (json[at] === "}") objects.pop();
    else if (json[at] === '"') {
      const begin = at++;
      for (; json[at] !== '"'; at++) if (json[at] === "\\") at++;
      colon.lastIndex = at + 1;
      if (!colon.test(json)) continue;
      const name: string = JSON.parse(json.slice(begin, at + 1));
      const names = objects.at(-1)!;
      if (names.has(name)) return name;
      names.add(name);
    }
  }
  return undefined;
}

async function readHeader(
  path: string,
): Promise<{ entries: Map<string, TensorEntry> } & Pick<Safetensors, "metadata" | "checked">> {
  const { file: opened, size } = await openRegular(path);
  using file = opened;
  const prefix = size >= 8 ? await readAt(file, 0, 8) : undefined;
  if (!prefix) throw inputError(`Cannot load ${path} as a safetensors file has at least 8 bytes: ${size}`);
  const headerLength = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  const bytes = headerLength <= Math.min(MAX_HEADER_BYTES, size - 8)
    ? await readAt(file, 8, headerLength)
    : undefined;
  if (!bytes) {
    throw inputError(
      `Cannot load ${path} as its header cannot be ${headerLength} bytes long in a file of ${size}`,
    );
  }
  const text = headerText(bytes, path);
  const header = parseUnique(text, path);
  if (!isObject(header)) throw inputError(`Cannot load ${path} as its header is no JSON object`);
  const entries = new Map<string, TensorEntry>();
  const data = 8 + headerLength;
  const { __metadata__: all = {}, ...tensors } = header;
  if (!isObject(all) || !Object.values(all).every((value) => typeof value === "string")) {
    throw inputError(`Cannot load ${path} as its __metadata__ must be an object of strings`);
  }
  const { metadata, digests, checked } = splitMetadata(all as Record<string, string>, text, path);
  for (const [name, value] of Object.entries(tensors)) {
    entries.set(name, { ...tensorEntry(path, name, value, data, size), digest: digests.get(name) });
  }
  if (checked && [...entries.keys()].some((name) => !digests.has(name))) {
    throw inputError(`Cannot load ${path} as it is damaged: one of its tensors has no checksum`);
  }
  const sorted = [...entries.values()].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let end = data;
  for (const entry of sorted) {
    if (entry.begin < end) {
      throw inputError(`Cannot load ${path} as tensor ${entry.name} overlaps the one before it`);
    }
    if (entry.begin > end) {
      throw inputError(
        `Cannot load ${path} as ${entry.begin - end} bytes before tensor ${entry.name} belong to none`,
      );
    }
    end = entry.end;
  }
  if (end !== size) throw inputError(`Cannot load ${path} as its tensors end at byte ${end} of ${size}`);
  return { entries, metadata, checked };
}

/**
 * A file's metadata without the checksums, and these by tensor.
 *
 * @throws {UserError} when the header's own checksum is missing or wrong
 */
function splitMetadata(
  all: Record<string, string>,
  text: string,
  path: string,
): { metadata: Record<string, string>; digests: Map<string, string>; checked: boolean } {
  const { [DIGEST]: ofHeader, ...others } = all;
  const digests = new Map<string, string>();
  const metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(others)) {
    if (name.startsWith(DIGEST + " ")) digests.set(name.slice(DIGEST.length + 1), value);
    else metadata[name] = value;
  }
  if (ofHeader === undefined && digests.size === 0) return { metadata, digests, checked: false };
  const field = (digest: string): string => `"${DIGEST}":${JSON.stringify(digest)}`;
  const unsealed = text.replace(field(String(ofHeader)), field(NO_DIGEST));
  if (ofHeader === undefined || digestOf(unsealed) !== ofHeader) {
    throw inputError(
      `Cannot load ${path} as its header is damaged, or was changed by a program that kept its checksums: it has another SHA-256`,
    );
  }
  return { metadata, digests, checked: true };
}

function isReadable(type: string): type is TensorType {
  return Object.hasOwn(BYTES, type);
}

function tensorEntry(path: string, name: string, value: unknown, data: number, size: number): TensorEntry {
  const { dtype, shape, data_offsets: offsets } = isObject(value) ? value : {};
  const fail = (why: string): never => {
    throw inputError(`Cannot load ${path} as tensor ${name} ${why}`);
  };
  const known: Record<string, number> = { ...BYTES, ...OTHER_BYTES };
  if (typeof dtype !== "string" || !Object.hasOwn(known, dtype)) {
    fail(`must be of type ${Object.keys(BYTES).join(", ")}: ${shown(dtype)}`);
  }
  const isSize = (axis: unknown): axis is number => Number.isSafeInteger(axis) && (axis as number) >= 0;
  if (!Array.isArray(shape) || !shape.every(isSize)) fail(`has no valid shape: ${shown(shape)}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize) || offsets[0] > offsets[1]) {
    fail(`has no valid data_offsets: ${shown(offsets)}`);
  }
  const type = dtype as string;
  const [first, last] = offsets as [number, number];
  if (data + last > size) fail(`ends at byte ${data + last} of a file of ${size}: the file is cut short`);
  const wanted = known[type] * elementsOf(shape as number[]);
  if (last - first !== wanted) {
    fail(`of shape [${(shape as number[]).join(", ")}] needs ${wanted} bytes: ${last - first}`);
  }
  return { name, type, shape: shape as number[], file: path, begin: data + first, end: data + last };
}

function decode(bytes: Uint8Array<ArrayBuffer>, type: TensorType): Float32Array {
  if (type === "F32") return new Float32Array(bytes.buffer);
  if (type === "F16") return new Float32Array(new Float16Array(bytes.buffer));
  const halves = new Uint16Array(bytes.buffer);
  const words = new Uint32Array(halves.length);
  for (let n = 0; n < halves.length; n++) words[n] = halves[n] << 16;
  return new Float32Array(words.buffer);
}

function encode(values: Float32Array | Int32Array, type: TensorType | "I32", name: string): Uint8Array {
  if (values instanceof Int32Array || type === "F32") {
    return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  }
  const { halves, infinity, largest } = type === "F16"
    ? { halves: new Uint16Array(new Float16Array(values).buffer), infinity: 0x7c00, largest: "65504" }
    : { halves: bfloat16(values), infinity: 0x7f80, largest: "3.39e38" };
  for (let n = 0; n < halves.length; n++) {
    if ((halves[n] & 0x7fff) === infinity && Number.isFinite(values[n])) {
      throw inputError(
        `Cannot save tensor ${name} as ${type}, which ends at ${largest}: element ${n} is ${values[n]}`,
      );
    }
  }
  return new Uint8Array(halves.buffer);
}

/** The upper halves of the values' bits, rounded to the nearest, ties to even. */
function bfloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let n = 0; n < halves.length; n++) {
    const word = words[n];
    const isNaN = (word & 0x7fffffff) > 0x7f800000;
    // Half of the last kept bit, less one where that bit is 0. It could carry a NaN over into infinity or zero, so a
    // NaN is cut off and made quiet instead.
    halves[n] = isNaN ? word >>> 16 | 0x40 : (word + 0x7fff + (word >>> 16 & 1)) >>> 16;
  }
  return halves;
}

/** A tensor to be written; its values are asked for shortly before their turn. */
export interface WritableTensor {
  /** Name in the file. */
  name: string;
  /** Sizes of the axes. */
  shape: readonly number[];
  /** F32 when left out. */
  type?: TensorType;
  /** Its values; asked for while those of the tensors before it may still be on their way. */
  read(): Promise<Float32Array>;
}

/** Integers to be written, stored as they are. */
export interface WritableIntegers extends Pick<WritableTensor, "name" | "shape"> {
  /** Two's complement, little-endian. */
  type: "I32";
  /** As {@link WritableTensor.read}. */
  read(): Promise<Int32Array>;
}

/** A tensor whose values are there, such as an activation that was read. */
export type HeldTensor =
  & Pick<WritableTensor, "name" | "shape">
  & ({
    /** F32 when left out. */
    type?: TensorType;
    /** All elements, the last axis the fastest. */
    values: Float32Array;
  } | {
    /** I32 also when left out. */
    type?: "I32";
    /** As of numbers. */
    values: Int32Array;
  });

/**
 * Writes a file with checksums, some tensors in memory at a time, under a temporary name until it is whole.
 *
 * @throws {UserError} naming the tensor, when a value is too large for its type
 * @throws {RangeError} when two tensors have the same name, or one has not as many values as its shape says
 * @throws {TypeError} when a tensor has neither `values` of its type nor `read`
 *
 * @example What a run of a model reads, for numpy and torch
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadModel, openSafetensors, writeSafetensors } from "../../mod.ts";
 *
 * using model = await loadModel("data/addition");
 * const { activations } = await model.run("12+34=", { read: "all" });
 * const path = await Deno.makeTempFile({ suffix: ".safetensors" });
 * await writeSafetensors(path, Array.from(activations, ([name, activation]) => ({ name, ...activation })));
 * assert((await openSafetensors(path)).entries.get("blocks.3.hook_resid_post")!.shape.join() === "1,6,64");
 * ```
 *
 * @example Values that are asked for one tensor after the other
 * ```ts
 * const path = await Deno.makeTempFile();
 * const read = () => Promise.resolve(new Float32Array([1, 2, 3, 4, 5, 6]));
 * await writeSafetensors(path, [{ name: "weight", shape: [2, 3], type: "BF16", read }]);
 * const file = await openSafetensors(path);
 * console.log(file.entries.get("weight")?.shape, await file.read("weight"));
 * await Deno.remove(path);
 * ```
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly (WritableTensor | WritableIntegers | HeldTensor)[],
  metadata?: Record<string, string>,
): Promise<void> {
  const all = tensors.map(readable);
  const header: Record<string, unknown> = Object.create(null);
  const digests: Record<string, string> = {};
  let offset = 0;
  for (const { name, shape, type = "F32" } of all) {
    if (name in header || name === "__metadata__") {
      throw new RangeError(`Cannot write ${path} as the name ${name} is taken`);
    }
    const end = offset + WRITTEN_BYTES[type] * elementsOf(shape);
    header[name] = { dtype: type, shape, data_offsets: [offset, end] };
    digests[`${DIGEST} ${name}`] = NO_DIGEST;
    offset = end;
  }
  /** The eight bytes of the length and the header, with the digests known so far; always as long. */
  const headBytes = (ofHeader: string): Uint8Array => {
    const all = { ...metadata, [DIGEST]: ofHeader, ...digests };
    const json = new TextEncoder().encode(JSON.stringify({ __metadata__: all, ...header }));
    // Spaces bring the data to a multiple of eight bytes, as the reference implementation does.
    const head = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
    head.set(json, 8);
    new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
    return head;
  };
  await writeAtomically(path, async (file) => {
    await writeAll(file, headBytes(NO_DIGEST));
    for await (const [{ name, shape, type = "F32" }, values] of readAhead(all)) {
      const wanted = elementsOf(shape);
      if (values.length !== wanted) {
        throw new RangeError(
          `Cannot write tensor ${name} as its shape has ${wanted} elements: ${values.length}`,
        );
      }
      const bytes = encode(values, type, name);
      digests[`${DIGEST} ${name}`] = digestOf(bytes);
      await writeAll(file, bytes);
    }
    await file.seek(0, Deno.SeekMode.Start);
    await writeAll(file, headBytes(digestOf(headBytes(NO_DIGEST).subarray(8))));
  });
}

/** A tensor that is asked for its values, whether they are there or not. */
function readable(tensor: WritableTensor | WritableIntegers | HeldTensor): WritableTensor | WritableIntegers {
  if ("read" in tensor) return tensor;
  const { name, shape, type, values } = tensor;
  if (values instanceof Int32Array && (type === undefined || type === "I32")) {
    return { name, shape, type: "I32", read: () => Promise.resolve(values) };
  }
  if (values instanceof Float32Array && type !== "I32") {
    return { name, shape, type, read: () => Promise.resolve(values) };
  }
  throw new TypeError(
    `Cannot write tensor ${name} as it needs \`values\`, a Float32Array, or of I32 an Int32Array, or else \`read\``,
  );
}

/** Every tensor with its values, those of the next already asked for: some at a time, or one that is larger alone. */
async function* readAhead<Tensor extends WritableTensor | WritableIntegers>(
  tensors: readonly Tensor[],
): AsyncGenerator<[Tensor, Float32Array | Int32Array]> {
  const asked: { tensor: Tensor; values: Promise<Float32Array | Int32Array>; bytes: number }[] = [];
  let next = 0;
  let ahead = 0;
  while (next < tensors.length || asked.length > 0) {
    for (; next < tensors.length; next++) {
      const tensor = tensors[next];
      const bytes = 4 * elementsOf(tensor.shape);
      if (asked.length > 0 && ahead + bytes > AHEAD_BYTES) break;
      const values: Promise<Float32Array | Int32Array> = tensor.read();
      // A failure is thrown when its turn comes; until then it must not count as unhandled.
      values.catch(() => {});
      asked.push({ tensor, values, bytes });
      ahead += bytes;
    }
    const { tensor, values, bytes } = asked.shift()!;
    yield [tensor, await values];
    ahead -= bytes;
  }
}
